"""Latents ↔ pixels by tiles that overlap and are blended, as diffusers lays and blends them: fast, and not exact.

GroupNorm sees a tile where it should see the picture, so tiles differ in tone and seams can show; the larger they
are, the less. Legend: H, W pixels, h, w latents, C channels. Knows nothing of the latents' scale.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pixart_sigma.allocator import returning_freed_memory
from pixart_sigma.encoders.kl_autoencoder import KLAutoencoder

TILE_SIDES = tuple(range(128, 31, -8))
"""Latents along a tile's side, largest first. 128 are 1024 pixels, diffusers' tile for SDXL's autoencoder."""

OVERLAP = 0.25
"""Of a tile's side; diffusers' own."""


@torch.no_grad()
def decode_blended(model: KLAutoencoder, latents: Tensor, tile_side: int) -> Tensor:
    """latents (1, C, h, w), unscaled → pixels (1, 3, H, W); a picture no larger than a tile is exact."""
    scale = model.config.pixels_per_latent
    return _blended(model.decode, latents, tile_side, tile_side * scale, scale)


@torch.no_grad()
def encode_blended(model: KLAutoencoder, pixels: Tensor, tile_side: int) -> Tensor:
    """pixels (1, 3, H, W) → the posterior's mean (1, C, h, w), unscaled."""
    scale = model.config.pixels_per_latent
    return _blended(lambda tile: model.encode(tile)[0], pixels, tile_side * scale, tile_side, 1 / scale)


def tile_sizes(size: int, tile_side: int) -> list[int]:
    """How far the tiles along a side of `size` latents reach, once one side is too long for a tile."""
    return [min(tile_side, size - first) for first in range(0, size, _stride(tile_side))]


def _stride(tile_side: int) -> int:
    return int(tile_side * (1 - OVERLAP))


def _blended(
    convert: Callable[[Tensor], Tensor], source: Tensor, side: int, side_after: int, scale: float
) -> Tensor:
    """convert: a tile (1, C, rows, columns) → (1, C', rows · scale, columns · scale), applied to tiles of `side`."""
    height, width = source.shape[2:]
    overlap = int(side_after * OVERLAP)
    kept = side_after - overlap
    with returning_freed_memory():
        if max(height, width) <= side:
            return convert(source)
        whole: Tensor | None = None
        above: list[Tensor] = []  # the lower edges of the row of tiles above
        for row, top in enumerate(range(0, height, _stride(side))):
            edges: list[Tensor] = []
            left: Tensor | None = None
            for column, start in enumerate(range(0, width, _stride(side))):
                tile = convert(source[:, :, top : top + side, start : start + side])
                if row:
                    _blend_(tile, above[column], dim=2)
                if left is not None:
                    _blend_(tile, left, dim=3)
                edges.append(tile[:, :, -overlap:].clone())
                left = tile[:, :, :, -overlap:].clone()
                if whole is None:
                    size = (1, tile.shape[1], round(height * scale), round(width * scale))
                    whole = tile.new_empty(size)
                place = whole[:, :, row * kept : (row + 1) * kept, column * kept : (column + 1) * kept]
                place.copy_(tile[:, :, : place.shape[2], : place.shape[3]])
                del tile  # before the next one is made
            above = edges
    assert whole is not None
    return whole


def _blend_(tile: Tensor, edge: Tensor, dim: int) -> None:
    """The tile's first rows (dim 2) or columns (dim 3) go over, step by step, from the edge before it to itself."""
    length = min(edge.shape[dim], tile.shape[dim])
    shape = [1, 1, 1, 1]
    shape[dim] = length
    share = (torch.arange(length, device=tile.device) / length).to(tile.dtype).reshape(shape)
    begin = tile.narrow(dim, 0, length)
    begin.copy_(edge.narrow(dim, edge.shape[dim] - length, length) * (1 - share) + begin * share)
