"""Fewer tokens for the keys and values of self-attention (paper section 3.2, Figure 7).

Legend: B batch, N image tokens, M windows, A tokens of a window that count, D width.
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
from pixart_sigma.model.activation_memory import combines
from pixart_sigma.model.config import KVCompression
from pixart_sigma.products import PLAIN_LINEARS, linear

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
    """One block's compression; keys and values share its weights, and the windows that they are made of."""

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

    def windows(
        self, tokens: Tensor, grid: tuple[int, int], kept_tokens: Tensor | None, *, norms: bool = False
    ) -> Tensor:
        """tokens (B, N, D) → what counts of each window (B, M, A, D): for nearest and discard one token, for average
        the mean alone, unless norms says that keys are normed in between, which is then done to each token.

        kept_tokens: (M,) or (B, M) int64 positions on the replicated grid, row by row; for discard only.
        Raises InvalidInput for discard without as many kept tokens as there are windows.
        """
        image = _replicate_edges(tokens.unflatten(1, grid), self.window)
        if self.operator == "nearest":
            return image[:, :: self.window[0], :: self.window[1]].flatten(1, 2).unsqueeze(2)
        if self.operator == "discard":
            kept = num_kept_tokens(grid, self.window)
            if kept_tokens is None or kept_tokens.shape[-1] != kept:
                found = "none" if kept_tokens is None else str(kept_tokens.shape[-1])
                raise InvalidInput(
                    f"operator 'discard' keeps {kept} of this grid's tokens; kept_tokens has {found}"
                )
            index = kept_tokens.expand(tokens.shape[0], kept)[..., None].expand(-1, -1, tokens.shape[-1])
            return image.flatten(1, 2).gather(1, index).unsqueeze(2)
        windows = image.unflatten(2, (-1, self.window[1])).unflatten(1, (-1, self.window[0])).transpose(2, 3)
        if self.operator == "average" and not norms:
            return windows.mean((3, 4)).flatten(1, 2).unsqueeze(2)  # once, for keys and values
        return windows.flatten(3, 4).flatten(1, 2)

    def compress(self, windows: Tensor, projection: nn.Module, norm: nn.Module | None = None) -> Tensor:
        """windows (B, M, A, D) → keys or values (B, M, D). projection: of a token; norm: of a projected one, if any.

        By definition each token is projected and normed, then its window is mixed. Where there is no norm all of that
        is linear: an average is projected once for its window, and a convolution with its projection is one product.
        """
        if self.operator in ("nearest", "discard"):
            projected = projection(windows.squeeze(2))
            return projected if norm is None else norm(projected)
        if self.operator == "average":
            return projection(windows.mean(2)) if norm is None else norm(projection(windows)).mean(2)
        if norm is None and isinstance(projection, nn.Linear) and self._is_one_product(windows, projection):
            mixed = self._product(windows, projection)
        else:
            projected = projection(windows.flatten(1, 2))
            mixed = self._mixed(projected if norm is None else norm(projected))
        return self.norm(mixed) if hasattr(self, "norm") else mixed

    def _is_one_product(self, windows: Tensor, projection: nn.Linear) -> bool:
        """Whether the combined weights are at hand, and are less to write than each token's projection."""
        pays = combines(windows.shape[0] * windows.shape[1], projection.in_features)
        return pays and _is_bare(projection, *PLAIN_LINEARS) and _is_bare(self.conv, nn.Conv2d)

    def _product(self, windows: Tensor, projection: nn.Linear) -> Tensor:
        """The projection of each token and the convolution of each window, without the former's results."""
        kernel = self.conv.weight.flatten(1)  # (D, A)
        weight = (kernel[:, :, None] * projection.weight[:, None]).flatten(1)  # (D, A · D)
        bias = torch.addcmul(self.conv.bias, kernel.sum(1), projection.bias)
        return linear(windows.flatten(2), weight, bias)

    def _mixed(self, projected: Tensor) -> Tensor:
        """Projected tokens, window by window (B, M · A, D), convolved (B, M, D)."""
        below_one_another = projected.transpose(1, 2).unflatten(2, (-1, self.window[1]))
        return self.conv(below_one_another).flatten(2).transpose(1, 2)


def _is_bare(layer: nn.Module, *kinds: type[nn.Module]) -> bool:
    """Whether a layer is its weights and nothing else: no adapter, not quantised, and nobody moves its weights there
    when it is called and away again.
    """
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    plain = type(layer) in kinds and type(layer.weight) is nn.Parameter
    return plain and "forward" not in vars(layer) and not any(hooks)
