"""torch's Muon, for the weights of convolutions too: a filter's row of weights is a row of a matrix.

Knows nothing of models; `build.py` says which weights it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class Muon(torch.optim.Muon):
    """`torch.optim.Muon` (Jordan et al., 2024) over weights of two or more dimensions, as (first, all the others).

    Updates are scaled to AdamW's size, so that both can share a rate. A convolution's momentum is kept as a matrix.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, weight_decay: float) -> None:
        with _as_matrices(weight for group in groups for weight in group["params"]):
            super().__init__(groups, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step; the gradients stay as they are."""
        with _as_matrices(weight for group in self.param_groups for weight in group["params"]):
            return super().step(closure)


@contextmanager
def _as_matrices(weights: Iterable[Tensor]) -> Iterator[None]:
    """Within, weights of more than two dimensions and their gradients are matrices in the same memory."""
    changed = [(weight, weight.shape, weight.grad) for weight in weights if weight.ndim > 2]
    try:
        for weight, _, gradient in changed:
            weight.grad = None
            weight.data = weight.data.view(len(weight), -1)  # which refuses to copy
            weight.grad = None if gradient is None else gradient.flatten(1)
        yield
    finally:
        for weight, shape, gradient in changed:
            weight.grad = None
            weight.data = weight.data.view(shape)
            weight.grad = gradient
