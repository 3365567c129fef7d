"""Tiny transformers of every kind as checkpoints, and as the official files of them that others would have written."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pixart_sigma.model.config import KVCompression, TransformerConfig
from pixart_sigma.model.embeddings import position_embedding
from pixart_sigma.model.transformer import PixArtTransformer
from pixart_sigma.weights.checkpoint import Checkpoint
from pixart_sigma.weights.keys import to_official

PLAIN = TransformerConfig(
    num_layers=2,
    num_attention_heads=1,
    attention_head_dim=72,
    sample_size=8,
    caption_channels=8,
    interpolation_scale=2.0,
)
KINDS = {
    "plain": PLAIN,
    "compressed": replace(PLAIN, kv_compression=KVCompression((2, 1), "conv", (1,))),
    "qk-norm": replace(PLAIN, qk_norm=True),
    "micro-conditioning": replace(PLAIN, micro_conditioning=True),
}
NO_WEIGHTS = replace(PLAIN, kv_compression=KVCompression((2, 2), "nearest", (0, 1), from_tokens=9))


def make_checkpoint(config: TransformerConfig = PLAIN, null_tokens: int | None = 5) -> Checkpoint:
    """Every parameter random, the norms and biases that start as constants too."""
    generator = torch.Generator().manual_seed(3)
    weights = {
        name: torch.randn(tensor.shape, generator=generator)
        for name, tensor in PixArtTransformer(config).state_dict().items()
    }
    shape = (null_tokens, config.caption_channels)
    null = torch.randn(shape, generator=generator) if null_tokens is not None else None
    return Checkpoint(config, weights, null, "tiny")


def positions_of(config: TransformerConfig) -> torch.Tensor:
    """The official buffer (1, g², D)."""
    grid = (config.base_grid, config.base_grid)
    scale = config.interpolation_scale
    return position_embedding(grid, config.width, config.base_grid, scale, torch.device("cpu")).float()[None]


def official_state_dict(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """As in a released file, with its two buffers."""
    state_dict = {"pos_embed": positions_of(checkpoint.config), **to_official(checkpoint.state_dict)}
    if checkpoint.null_caption is not None:
        state_dict["y_embedder.y_embedding"] = checkpoint.null_caption
    return state_dict


def write_foreign_pth(checkpoint: Checkpoint, path: Path, **others: Any) -> Path:
    """A .pth that says nothing of its configuration."""
    torch.save({"state_dict": official_state_dict(checkpoint), **others}, path)
    return path


def same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    """Names, dtypes and bits."""
    return one.keys() == other.keys() and all(
        tensor.dtype == other[name].dtype and torch.equal(tensor, other[name]) for name, tensor in one.items()
    )
