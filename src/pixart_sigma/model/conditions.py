"""What the transformer prepares before it runs: captions once per prompt, timesteps once per schedule.

Legend: B batch, L caption tokens (a multiple of 16), T packed caption tokens, D width, S timestep rows, K blocks.
Only holds and arranges tensors; the transformer computes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pixart_sigma.errors import InvalidInput
from pixart_sigma.model.config import CAPTION_LENGTH_MULTIPLE


@dataclass(frozen=True)
class CaptionLayout:
    """Where the real tokens of B captions, packed one caption after the other, belong in rows of equal length.

    destinations: (T,) int64 positions among batch * length. mask: (B, 1, 1, L) bool, True on real tokens, or None
    if all are real.
    """

    batch: int
    length: int
    destinations: Tensor
    mask: Tensor | None

    @staticmethod
    def of(mask: Tensor) -> CaptionLayout:
        """mask (B, any length) bool, True on real tokens → the layout, as long as the longest caption, rounded up.

        Raises InvalidInput for a caption without tokens.
        """
        lengths = mask.sum(dim=1)
        shortest, longest = int(lengths.min()), int(lengths.max())
        if shortest == 0:
            raise InvalidInput("a caption has no tokens; encode an empty prompt to its end token at least")
        batch = mask.shape[0]
        length = -(-longest // CAPTION_LENGTH_MULTIPLE) * CAPTION_LENGTH_MULTIPLE
        # A real token goes to its caption's row of (B * L), at its rank among the row's real tokens.
        ranks = mask.cumsum(dim=1) - 1 + torch.arange(batch, device=mask.device)[:, None] * length
        real = None
        if shortest < length:
            real = (torch.arange(length, device=mask.device) < lengths[:, None])[:, None, None]
        return CaptionLayout(batch, length, ranks[mask], real)

    def spread(self, tokens: Tensor) -> Tensor:
        """Packed tokens (..., T, D) → (..., B, L, D), zero where there is no token."""
        rows = tokens.new_zeros(*tokens.shape[:-2], self.batch * self.length, tokens.shape[-1])
        return rows.index_copy(-2, self.destinations, tokens).unflatten(-2, (self.batch, self.length))


@dataclass(frozen=True)
class Captions:
    """Every block's cross-attention keys and values.

    keys, values: (K, B, heads, L, head dim). mask: (B, 1, 1, L) bool, True on real tokens, or None if all
    are real.
    """

    keys: Tensor
    values: Tensor
    mask: Tensor | None

    def __len__(self) -> int:
        return int(self.keys.shape[1])

    @property
    def length(self) -> int:
        """L, padding included."""
        return int(self.keys.shape[3])

    def _padded(self, length: int) -> Captions:
        missing = length - self.length
        if missing == 0:
            return self
        mask = self._dense_mask()
        return Captions(
            keys=F.pad(self.keys, (0, 0, 0, missing)),
            values=F.pad(self.values, (0, 0, 0, missing)),
            mask=F.pad(mask, (0, missing), value=False),
        )

    def _dense_mask(self) -> Tensor:
        if self.mask is not None:
            return self.mask
        return torch.ones(len(self), 1, 1, self.length, dtype=torch.bool, device=self.keys.device)

    @staticmethod
    def concat(parts: Sequence[Captions]) -> Captions:
        """One batch of all the parts' captions, in order; shorter parts are padded to the longest."""
        length = max(part.length for part in parts)
        padded = [part._padded(length) for part in parts]
        mask = None
        if any(part.mask is not None for part in padded):
            mask = torch.cat([part._dense_mask() for part in padded])
        return Captions(
            keys=torch.cat([part.keys for part in padded], dim=1),
            values=torch.cat([part.values for part in padded], dim=1),
            mask=mask,
        )

    def repeat(self, count: int) -> Captions:
        """Each caption `count` times in a row: a, b → a, a, b, b for 2."""
        return Captions(
            keys=self.keys.repeat_interleave(count, dim=1),
            values=self.values.repeat_interleave(count, dim=1),
            mask=None if self.mask is None else self.mask.repeat_interleave(count, dim=0),
        )


@dataclass(frozen=True)
class Timesteps:
    """Every block's modulation rows, and those of the output.

    blocks: (K, S, 6, D), shift, scale and gate of self-attention, then of the MLP. output: (S, 2, D), shift
    and scale. S is 1 (broadcast over the batch) or the batch size when the
    transformer runs; a schedule of S steps is prepared at once and `timesteps[i]` is its row i, S = 1.
    """

    blocks: Tensor
    output: Tensor

    def __len__(self) -> int:
        return int(self.output.shape[0])

    def __getitem__(self, step: int) -> Timesteps:
        if not -len(self) <= step < len(self):
            raise IndexError(f"step {step} of a schedule of {len(self)}")
        step %= len(self)
        return Timesteps(blocks=self.blocks[:, step : step + 1], output=self.output[step : step + 1])
