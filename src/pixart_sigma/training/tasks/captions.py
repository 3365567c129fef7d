"""Captions as token ids, tokenised once and drawn from for every batch.

Legend: N captions, B batch, L tokens of the longest caption of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pixart_sigma.encoders.tokenizer import Tokenizer
from pixart_sigma.model.config import CAPTION_LENGTH_MULTIPLE


class CaptionTable:
    """Token ids of N captions, the end token included."""

    def __init__(self, tokenizer: Tokenizer, captions: Sequence[str]) -> None:
        rows = tokenizer.encode(captions)
        self.lengths = torch.tensor([len(row) for row in rows])
        self._ids = torch.full(
            (len(rows), int(self.lengths.max())), tokenizer.pad_token_id, dtype=torch.int16
        )
        self._padding = tokenizer.pad_token_id
        for index, row in enumerate(rows):
            self._ids[index, : len(row)] = torch.tensor(row, dtype=torch.int16)

    def __len__(self) -> int:
        return len(self.lengths)

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """indices (B,) → ids (B, L) int64 and mask (B, L) bool, L a multiple of CAPTION_LENGTH_MULTIPLE."""
        lengths = self.lengths[indices]
        longest = int(lengths.max())
        padded = -(-longest // CAPTION_LENGTH_MULTIPLE) * CAPTION_LENGTH_MULTIPLE
        ids = torch.full((len(indices), padded), self._padding, dtype=torch.int64)
        ids[:, :longest] = self._ids[indices, :longest].long()
        return ids, torch.arange(padded) < lengths[:, None]
