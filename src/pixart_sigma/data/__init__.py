"""Data: pools of drawn scenes and their cached latents. Knows nothing of the transformer."""
