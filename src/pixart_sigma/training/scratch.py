"""The configuration of a fresh transformer: what a recipe says of it, and what follows from its encoders."""

from __future__ import annotations

from pixart_sigma.model import TransformerConfig
from pixart_sigma.training.recipe.start import ScratchRecipe
from pixart_sigma.training.surgery import compression_of


def scratch_config(recipe: ScratchRecipe, latent_channels: int, caption_channels: int) -> TransformerConfig:
    """Channels are those of the autoencoder and of the text encoder. Raises InvalidInput for what cannot be."""
    compression = recipe.kv_compression
    return TransformerConfig(
        num_layers=recipe.num_layers,
        num_attention_heads=recipe.num_attention_heads,
        attention_head_dim=recipe.attention_head_dim,
        in_channels=latent_channels,
        out_channels=latent_channels * (2 if recipe.learned_variance else 1),
        sample_size=recipe.sample_size,
        caption_channels=caption_channels,
        interpolation_scale=recipe.interpolation_scale,
        qk_norm=recipe.qk_norm,
        kv_compression=compression_of(compression, recipe.num_layers) if compression else None,
    )
