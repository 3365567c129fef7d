"""Latents ↔ pixels by diffusers' own tiles, which overlap and are blended: fast, and not exact.

GroupNorm sees a tile where it should see the picture, so tiles differ in tone and seams can show; the larger they
are, the less. Legend: H, W pixels, h, w latents. Knows nothing of the latents' scale.
"""

import copy
from typing import Any

import torch
from torch import Tensor

from pixart_sigma.allocator import returning_freed_memory

TILE_SIDES = tuple(range(128, 31, -8))
"""Latents along a tile's side, largest first. 128 are 1024 pixels, diffusers' tile for SDXL's autoencoder."""

OVERLAP = 0.25
"""Of a tile's side; diffusers' own."""


@torch.no_grad()
def decode_blended(model: Any, latents: Tensor, tile_side: int) -> Tensor:
    """latents (1, C, h, w), unscaled → pixels (1, 3, H, W); a picture no larger than a tile is exact."""
    with returning_freed_memory():
        return _tiled(model, tile_side).decode(latents, return_dict=False)[0]


@torch.no_grad()
def encode_blended(model: Any, pixels: Tensor, tile_side: int) -> Tensor:
    """pixels (1, 3, H, W) → the posterior's mean (1, C, h, w), unscaled."""
    with returning_freed_memory():
        return _tiled(model, tile_side).encode(pixels).latent_dist.mode()


def tile_sizes(size: int, tile_side: int) -> list[int]:
    """How far the tiles along a side of `size` latents reach, as diffusers lays them once one side is too long."""
    stride = int(tile_side * (1 - OVERLAP))
    return [min(tile_side, size - first) for first in range(0, size, stride)]


def _tiled(model: Any, tile_side: int) -> Any:
    """The same weights with tiles enabled. A copy, since another may use the model as it is."""
    tiled = copy.copy(model)
    scale = 2 ** (len(model.config.block_out_channels) - 1)
    tiled.tile_latent_min_size = tile_side
    tiled.tile_sample_min_size = tile_side * scale
    tiled.tile_overlap_factor = OVERLAP
    tiled.enable_tiling()
    return tiled
