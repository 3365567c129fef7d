"""Weights and configurations in files: names, strict loading and saving, pipeline folders."""
