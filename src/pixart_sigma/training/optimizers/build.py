"""From a recipe's section to optimisers over a model's trainable parameters. Knows nothing of schedules."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from pixart_sigma.errors import MissingDependency, RecipeError
from pixart_sigma.training.frozen_linear import quiet_bitsandbytes
from pixart_sigma.training.optimizers.came import CAME
from pixart_sigma.training.optimizers.muon import Muon
from pixart_sigma.training.recipe.process import OptimizerRecipe

# What a recipe's None stands for. CAME's are the paper's; AdamW's second decay is one for short runs.
_CAME_BETAS = (0.9, 0.999, 0.9999)
_CAME_EPS = (1e-30, 1e-16)
_ADAMW_BETAS = (0.9, 0.99)
_ADAMW_EPS = 1e-8

# Inputs, outputs and embeddings do not suit Muon (Jordan et al., 2024): of linear layers those inside a block are
# hidden, of convolutions all but the first and the last.
_BLOCKS = ("transformer_blocks.", "block.")
_ENDS = ("conv_in.", "conv_out.", "pos_embed.", "backbone.layers.0.")
# A T5's table of relative positions.
_POSITIONS = "relative_attention_bias.weight"
_FUSED_DEVICES = ("cpu", "cuda", "mps", "xpu")


def build_optimizers(model: nn.Module, recipe: OptimizerRecipe) -> list[torch.optim.Optimizer]:
    """One or two optimisers over the trainable parameters; each group remembers its `peak` rate.

    Sharded and whole parameters, which torch cannot update in one call, get groups of their own. Raises RecipeError
    where nothing is trainable or the kind does not work with sharded parameters.
    """
    named = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    if not named:
        raise RecipeError(
            "an optimizer needs at least one trainable parameter, the model has none; train some part"
        )
    if recipe.position_learning_rate is not None and not any(name.endswith(_POSITIONS) for name, _ in named):
        raise RecipeError(
            "optimizer.position_learning_rate is ignored where no text encoder is trained; remove it"
        )
    weights = [weight for _, weight in named]
    if recipe.kind == "came":
        optimizers = [_came(weights, recipe)]
    elif recipe.kind == "adamw-8bit":
        optimizers = [_adamw_8bit(weights, recipe)]
    elif recipe.kind == "muon":
        optimizers = _muon(named, recipe)
    else:
        optimizers = [_adamw(named, recipe)]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return optimizers


def _came(weights: list[Tensor], recipe: OptimizerRecipe) -> torch.optim.Optimizer:
    return CAME(_groups(weights), **_settings(recipe, _CAME_BETAS, _CAME_EPS))


def _adamw(named: list[tuple[str, Tensor]], recipe: OptimizerRecipe) -> torch.optim.Optimizer:
    fused = all(weight.device.type in _FUSED_DEVICES for _, weight in named)
    groups = _groups([weight for name, weight in named if not name.endswith(_POSITIONS)])
    positions = _groups([weight for name, weight in named if name.endswith(_POSITIONS)])
    for group in positions:
        group["lr"] = recipe.position_learning_rate or recipe.learning_rate
    settings = _settings(recipe, _ADAMW_BETAS, _ADAMW_EPS)
    return torch.optim.AdamW([*groups, *positions], **settings, fused=fused)


def _adamw_8bit(weights: list[Tensor], recipe: OptimizerRecipe) -> torch.optim.Optimizer:
    if any(isinstance(weight, DTensor) for weight in weights):
        raise RecipeError("adamw-8bit does not work with sharded parameters; use strategy ddp, or came/adamw")
    quiet_bitsandbytes()
    try:
        import bitsandbytes
    except ImportError as error:
        raise MissingDependency("adamw-8bit needs bitsandbytes; pip install bitsandbytes") from error
    untyped: Any = bitsandbytes.optim
    return untyped.AdamW8bit(weights, **_settings(recipe, _ADAMW_BETAS, _ADAMW_EPS))


def _muon(named: list[tuple[str, Tensor]], recipe: OptimizerRecipe) -> list[torch.optim.Optimizer]:
    matrices = [weight for name, weight in named if _is_hidden_matrix(name, weight)]
    others = [(name, weight) for name, weight in named if not _is_hidden_matrix(name, weight)]
    optimizers: list[torch.optim.Optimizer] = []
    if matrices:
        rate = recipe.matrix_learning_rate or recipe.learning_rate
        optimizers.append(Muon(_groups(matrices), rate, recipe.weight_decay))
    if others:
        optimizers.append(_adamw(others, recipe))
    return optimizers


def _settings(
    recipe: OptimizerRecipe, betas: tuple[float, ...], eps: float | tuple[float, float]
) -> dict[str, Any]:
    """The keywords that CAME and AdamW share; `betas` and `eps` where the recipe has none."""
    return {
        "lr": recipe.learning_rate,
        "betas": recipe.betas or betas,
        "eps": recipe.eps or eps,
        "weight_decay": recipe.weight_decay,
    }


def _groups(weights: list[Tensor]) -> list[dict[str, Any]]:
    """A parameter group for the whole weights and one for each device mesh."""
    groups: dict[Any, list[Tensor]] = {}
    for weight in weights:
        groups.setdefault(weight.device_mesh if isinstance(weight, DTensor) else None, []).append(weight)
    return [{"params": members} for members in groups.values()]


def _is_hidden_matrix(name: str, weight: Tensor) -> bool:
    if weight.ndim == 4:
        # One by one is a linear layer; one input channel is a depthwise filter, which is no matrix.
        return weight.shape[1] > 1 and weight.shape[-1] > 1 and not any(part in name for part in _ENDS)
    inside = any(part in name for part in _BLOCKS)
    return weight.ndim == 2 and inside and not name.endswith(("scale_shift_table", _POSITIONS))
