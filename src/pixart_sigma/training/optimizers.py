"""Optimisers by name, the learning-rate schedule, and the moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pixart_sigma.training.recipe import OptimizerRecipe, RunRecipe

# Hidden layers live inside a block; inputs, outputs and embeddings do not suit Muon (Jordan et al., 2024).
_HIDDEN = ("transformer_blocks.", "block.")


def build_optimizers(model: nn.Module, recipe: OptimizerRecipe) -> list[torch.optim.Optimizer]:
    """One or two optimisers over the trainable parameters; each group remembers its `peak` rate."""
    named = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    matrices = [weight for name, weight in named if recipe.kind == "muon" and _is_hidden_matrix(name, weight)]
    chosen = {id(weight) for weight in matrices}
    others = [weight for _, weight in named if id(weight) not in chosen]
    optimizers: list[torch.optim.Optimizer] = []
    if matrices:
        # Scaling the update to AdamW's RMS lets both share a rate unless the recipe says otherwise.
        optimizers.append(
            torch.optim.Muon(
                matrices,
                lr=recipe.matrix_learning_rate or recipe.learning_rate,
                weight_decay=recipe.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    if others:
        optimizers.append(
            torch.optim.AdamW(
                others,
                lr=recipe.learning_rate,
                betas=recipe.betas,
                weight_decay=recipe.weight_decay,
                fused=True,
            )
        )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return optimizers


def _is_hidden_matrix(name: str, weight: Tensor) -> bool:
    inside = any(part in name for part in _HIDDEN)
    return (
        weight.ndim == 2
        and inside
        and not name.endswith(("scale_shift_table", "relative_attention_bias.weight"))
    )


def rate_factor(step: int, run: RunRecipe) -> float:
    """The fraction of the peak rate at `step` (from 0): linear warm-up, then a cosine down to final_rate."""
    if step < run.warmup_steps:
        return (step + 1) / run.warmup_steps
    progress = (step - run.warmup_steps) / max(1, run.steps - run.warmup_steps)
    return run.final_rate + (1 - run.final_rate) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def set_rate(optimizers: Iterable[torch.optim.Optimizer], factor: float) -> None:
    """Set every group's rate to its peak times `factor`."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor


class MovingAverage:
    """The exponential moving average of a model's trainable weights, in fp32 beside it."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        named = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self._live = [weight.data for weight in named.values()]
        self.tensors = {name: weight.detach().float().clone() for name, weight in named.items()}

    def update(self, step: int) -> None:
        """Move towards the live weights after `step` (from 0); early on over a shorter past, to forget the start."""
        decay = min(self.decay, (step + 1) / (step + 10))
        torch._foreach_lerp_(list(self.tensors.values()), self._live, 1 - decay)

    def swap(self) -> None:
        """Exchange averaged and live weights in place; a second call restores them."""
        averaged = list(self.tensors.values())
        kept = [weight.clone() for weight in self._live]
        torch._foreach_copy_(self._live, averaged)
        torch._foreach_copy_(averaged, kept)
