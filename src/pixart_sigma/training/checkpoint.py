"""Checkpoints: a folder per step, written aside and renamed, so that a half-written one never has the name.

Weights and their moving average are safetensors; the optimisers' state is read with `weights_only=True`.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from pixart_sigma.errors import WeightsError
from pixart_sigma.training.optimizers import MovingAverage
from pixart_sigma.training.recipe import Recipe, dump_recipe


def save_checkpoint(
    folder: Path,
    step: int,
    model: nn.Module,
    average: MovingAverage,
    optimizers: list[torch.optim.Optimizer],
    recipe: Recipe,
    keep: int,
) -> Path:
    """Write `folder/step-NNNNNNNN` after `step` steps and delete all but the newest `keep`."""
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step-{step:08d}"
    aside = folder / f".{final.name}.writing"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    weights = {
        name: weight.detach().contiguous()
        for name, weight in model.named_parameters()
        if weight.requires_grad
    }
    save_file(weights, aside / "weights.safetensors")
    save_file(average.tensors, aside / "average.safetensors")
    torch.save([optimizer.state_dict() for optimizer in optimizers], aside / "optimizers.pt")
    (aside / "recipe.toml").write_text(dump_recipe(recipe), "utf-8")
    (aside / "state.json").write_text(json.dumps({"step": step}), "utf-8")
    shutil.rmtree(final, ignore_errors=True)
    aside.rename(final)
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoints, oldest first."""
    return sorted(folder.glob("step-*"))


def load_checkpoint(
    folder: Path, model: nn.Module, average: MovingAverage, optimizers: list[torch.optim.Optimizer]
) -> int:
    """Restore everything in place and return the number of steps done. Raises WeightsError on a mismatch."""
    live = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    for target, file in ((live, "weights.safetensors"), (average.tensors, "average.safetensors")):
        stored = load_file(folder / file)
        shapes = {name: tensor.shape for name, tensor in target.items()}
        if {name: tensor.shape for name, tensor in stored.items()} != shapes:
            raise WeightsError(
                f"{folder / file} has other weights than this recipe makes; resume with {folder / 'recipe.toml'}"
            )
        with torch.no_grad():
            for name, tensor in stored.items():
                target[name].copy_(tensor)
    states = torch.load(folder / "optimizers.pt", map_location="cpu", weights_only=True)
    for optimizer, state in zip(optimizers, states, strict=True):
        optimizer.load_state_dict(state)
    return int(json.loads((folder / "state.json").read_text("utf-8"))["step"])
