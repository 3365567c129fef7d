"""The learning rate as a function of the step: to resume is arithmetic, no scheduler's state is saved."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from pixart_sigma.training.recipe.process import RateRecipe


def rate_factor(step: int, rate: RateRecipe, steps: int, batch_size: int) -> float:
    """What the recipe's learning rate is multiplied with at `step` (from 0) of `steps`, at a global `batch_size`.

    A linear warm-up that reaches the peak with its last step, then constant, or falling to `rate.final` of the peak at
    the end. The peak itself is sqrt(batch_size / reference_batch_size) where that is given: Adam-like optimisers divide
    by the gradient's spread, which falls with the square root of the batch (Malladi et al., 2022).
    """
    peak = math.sqrt(batch_size / rate.reference_batch_size) if rate.reference_batch_size else 1.0
    if step < rate.warmup_steps:
        return peak * (step + 1) / rate.warmup_steps
    progress = min(1.0, (step - rate.warmup_steps) / max(1, steps - rate.warmup_steps))
    return peak * _height(rate, progress)


def _height(rate: RateRecipe, progress: float) -> float:
    """The fraction of the peak at `progress` 0 … 1 from the end of the warm-up to the end of the run."""
    if rate.kind == "constant":
        return 1.0
    descent = 1 - progress if rate.kind == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    return rate.final + (1 - rate.final) * descent


def set_rate(optimizers: Iterable[torch.optim.Optimizer], factor: float) -> None:
    """Set every group's rate to its `peak`, as `build_optimizers` noted it, times `factor`."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor
