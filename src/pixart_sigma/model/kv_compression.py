"""Fewer tokens for the keys and values of self-attention (paper section 3.2, Figure 7).

Legend: B batch, N image tokens, M kept tokens, D width.
Every operator sees a grid whose sides are multiples of the window: other grids are first continued at the
bottom and the right by repeating their last row and column, so that every resolution bucket has a defined
result.
Does not draw random numbers: which tokens `discard` keeps is an input.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from pixart_sigma.errors import InvalidInput
from pixart_sigma.model.config import KVCompression

CompressionInitialisation = Literal["average", "random"]


def replicated_grid(grid: tuple[int, int], window: tuple[int, int]) -> tuple[int, int]:
    """The (height, width) of `grid`, each rounded up to a multiple of the window's side."""
    return (-(-grid[0] // window[0]) * window[0], -(-grid[1] // window[1]) * window[1])


def num_kept_tokens(grid: tuple[int, int], window: tuple[int, int]) -> int:
    """M: the number of windows on the replicated grid."""
    return -(-grid[0] // window[0]) * -(-grid[1] // window[1])


def _replicate_edges(image: Tensor, window: tuple[int, int]) -> Tensor:
    """image (B, height, width, D) → its sides multiples of the window, last row and column repeated."""
    rows, columns = replicated_grid((image.shape[1], image.shape[2]), window)
    if rows > image.shape[1]:
        image = torch.cat([image, image[:, -1:].expand(-1, rows - image.shape[1], -1, -1)], dim=1)
    if columns > image.shape[2]:
        image = torch.cat([image, image[:, :, -1:].expand(-1, -1, columns - image.shape[2], -1)], dim=2)
    return image


class KVCompressor(nn.Module):
    """One block's compression; keys and values share its weights.

    `select` (operators nearest and discard) picks tokens, which commutes with the key and value projections,
    so it comes before them and saves their work; `mix` (operators conv and average) comes after them.
    """

    def __init__(self, config: KVCompression, width: int) -> None:
        super().__init__()
        self.window = config.window
        self.operator = config.operator
        self.config = config
        if config.operator == "conv":
            self.conv = nn.Conv2d(width, width, kernel_size=config.window, stride=config.window, groups=width)
        if config.norm:
            self.norm = nn.LayerNorm(width)
        self.initialise_weights("average")

    def initialise_weights(
        self, initialisation: CompressionInitialisation, generator: torch.Generator | None = None
    ) -> None:
        """Start the convolution as the window's mean (paper section 3.2) or at random; reset the LayerNorm.

        With the LayerNorm, the mean is not a plain average: keys and values lose their scale.
        """
        if self.operator != "conv":
            return
        if initialisation == "average":
            nn.init.constant_(self.conv.weight, 1 / (self.window[0] * self.window[1]))
        else:
            # As torch starts any Conv2d.
            nn.init.kaiming_uniform_(self.conv.weight, a=5**0.5, generator=generator)
        nn.init.zeros_(self.conv.bias)
        if hasattr(self, "norm"):
            self.norm.reset_parameters()

    def applies(self, grid: tuple[int, int]) -> bool:
        """Whether a (height, width) grid is compressed.

        Whoever shares a picture out over devices puts another in its place, where the grid is a band of a larger one.
        """
        return self.config.applies(grid)

    def select(self, tokens: Tensor, grid: tuple[int, int], kept_tokens: Tensor | None) -> Tensor:
        """tokens (B, N, D) → (B, M, D) for nearest and discard; unchanged for other operators and small grids.

        kept_tokens: (M,) or (B, M) int64 positions on the replicated grid, row by row; for discard only.
        """
        if self.operator not in ("nearest", "discard") or not self.applies(grid):
            return tokens
        image = _replicate_edges(tokens.unflatten(1, grid), self.window)
        if self.operator == "nearest":
            return image[:, :: self.window[0], :: self.window[1]].flatten(1, 2)
        kept = num_kept_tokens(grid, self.window)
        if kept_tokens is None or kept_tokens.shape[-1] != kept:
            found = "none" if kept_tokens is None else str(kept_tokens.shape[-1])
            raise InvalidInput(
                f"operator 'discard' keeps {kept} of this grid's tokens; kept_tokens has {found}"
            )
        index = kept_tokens.expand(tokens.shape[0], kept)[..., None].expand(-1, -1, tokens.shape[-1])
        return image.flatten(1, 2).gather(1, index)

    def mix(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Keys or values (B, N, D) → (B, M, D) for conv and average; unchanged for other operators and small grids."""
        if self.operator not in ("conv", "average") or not self.applies(grid):
            return tokens
        image = _replicate_edges(tokens.unflatten(1, grid), self.window)
        if self.operator == "average":
            image = image.unflatten(2, (-1, self.window[1])).unflatten(1, (-1, self.window[0]))
            return image.mean(dim=(2, 4)).flatten(1, 2)
        mixed = self.conv(image.permute(0, 3, 1, 2)).flatten(2).transpose(1, 2)
        return self.norm(mixed) if hasattr(self, "norm") else mixed
