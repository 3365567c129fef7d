"""Prompts as other pipelines tokenise them: padded, with a mask."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pixart_sigma.encoders.text import TextEncoder


def padded(encoder: TextEncoder, prompts: Sequence[str], length: int) -> tuple[Tensor, Tensor]:
    """Prompts → ids and mask (B, length), int64, 1 on real tokens."""
    rows = encoder.tokenizer.encode(prompts)
    ids = torch.full((len(rows), length), encoder.tokenizer.pad_token_id)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row)], mask[index, : len(row)] = torch.tensor(row), 1
    return ids, mask
