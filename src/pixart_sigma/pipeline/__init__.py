"""Prompt → image: the request, the sampler's choice, the run, and the picture's metadata."""
