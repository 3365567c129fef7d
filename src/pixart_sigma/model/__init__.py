"""The transformer, pure torch: a function of latents, captions and timesteps. No files, no diffusers."""

from pixart_sigma.model.conditions import Captions, Timesteps
from pixart_sigma.model.config import KVCompression, TransformerConfig
from pixart_sigma.model.transformer import PixArtTransformer

__all__ = ["Captions", "KVCompression", "PixArtTransformer", "Timesteps", "TransformerConfig"]
