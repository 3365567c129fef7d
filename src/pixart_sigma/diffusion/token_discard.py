"""Which tokens random discard keeps (paper Table 3b): the draw that the model itself does not make.

Legend: B batch, N image tokens of the replicated grid, M kept tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pixart_sigma.model.kv_compression import num_kept_tokens, replicated_grid


def draw_kept_tokens(
    grid: tuple[int, int], window: tuple[int, int], generator: torch.Generator | Sequence[torch.Generator]
) -> Tensor:
    """M of the grid's tokens, drawn without replacement, in order → int64 positions on the generator's
    device.

    One generator: (M,), the same for every sample. One generator per sample: (B, M), so that a sample's draw
    does not depend on the batch it is in.
    """
    if not isinstance(generator, torch.Generator):
        return torch.stack([draw_kept_tokens(grid, window, one) for one in generator])
    rows, columns = replicated_grid(grid, window)
    shuffled = torch.randperm(rows * columns, generator=generator, device=generator.device)
    return shuffled[: num_kept_tokens(grid, window)].sort().values
