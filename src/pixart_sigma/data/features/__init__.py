"""Cached features, as columns of a table: latents of the pictures, embeddings of the captions.

A column's name ends with the beginning of the digest of the weights that made it. The whole digest, and what else a
reader must know, stand in its metadata and are checked when it is opened.
"""

from pixart_sigma.data.features.embeddings import EmbeddingsColumn, add_embeddings, embeddings_column
from pixart_sigma.data.features.latents import LatentsColumn, add_latents, latents_column
from pixart_sigma.weights.digests import autoencoder_digest, text_encoder_digest

__all__ = [
    "EmbeddingsColumn",
    "LatentsColumn",
    "add_embeddings",
    "add_latents",
    "autoencoder_digest",
    "embeddings_column",
    "latents_column",
    "text_encoder_digest",
]
