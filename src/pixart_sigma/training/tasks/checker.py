"""The checker task: every attribute of drawn scenes, by cross-entropy.

Legend: B batch, K kinds. Knows nothing of captions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixart_sigma.evaluation.judges.checker import (
    CHECKER_FILE,
    Checker,
    CheckerConfig,
    load_checker,
    save_checker,
)
from pixart_sigma.evaluation.judges.labels import UNASKED, truth_labels
from pixart_sigma.pipeline.placement.processes import Processes
from pixart_sigma.training.recipe.small_models import CheckerRecipe
from pixart_sigma.training.tasks.judge_pictures import open_pictures
from pixart_sigma.training.tasks.parts import part_weights
from pixart_sigma.training.tasks.small import SmallTask
from pixart_sigma.world.scene import Scene, Sign, Thing

_VALIDATION_BATCH = 64
# Roughly the number of attributes of a scene: keeps the loss, and with it the clipped gradient, near 1.
_LOSS_SCALE = 0.1


@dataclass(frozen=True)
class LabelledPictures:
    """pixels (B, 3, 128, 128) in [-1, 1], labels as of `truth_labels`, and the factor of the samples' sum."""

    pixels: Tensor
    labels: dict[str, Tensor]
    share: float


class CheckerObjective(nn.Module):
    """A checker and its loss: the cross-entropies of all attributes that apply, added up over a picture."""

    def __init__(self, checker: Checker) -> None:
        super().__init__()
        self.checker = checker

    def forward(self, batch: LabelledPictures) -> dict[str, Tensor]:
        """LabelledPictures → the loss, and the share of pictures on which everything is read correctly."""
        logits = self.checker(batch.pixels)
        entropies = [
            F.cross_entropy(values.float().flatten(0, -2), batch.labels[name].flatten(), reduction="sum")
            for name, values in logits.items()
        ]
        right, asked = verdicts(logits, batch.labels)
        flawless = torch.cat(
            [(right[name] | ~asked[name]).reshape(len(batch.pixels), -1) for name in right], 1
        ).all(1)
        loss = _LOSS_SCALE * batch.share * torch.stack(entropies).sum()
        return {"loss": loss, "flawless": batch.share * flawless.sum()}


def verdicts(
    logits: dict[str, Tensor], labels: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Logits and labels → for each attribute whether it is right, and whether it was asked for: bool, (B,) or (B, K).

    Counts are asked only of the kinds that are there, or a judge that sees nothing would mostly be right; in their
    place `kinds` (B,) is whether exactly those are seen.
    """
    read = {name: values.argmax(-1) for name, values in logits.items()}
    right = {name: read[name] == labels[name] for name in read}
    asked = {name: labels[name] != UNASKED for name in read}
    there = labels["count"] > 0
    right["kinds"] = ((read["count"] > 0) == there).all(1)
    asked["kinds"] = torch.ones_like(right["kinds"])
    asked["count"] = there
    return right, asked


class CheckerTask(SmallTask):
    """Drawn scenes and their truth."""

    def __init__(self, recipe: CheckerRecipe, output: Path, processes: Processes) -> None:
        self._recipe = recipe
        self._device = processes.device
        self._training, self._validation = open_pictures(recipe.pool, recipe.image_sizes, output, processes)
        self._training_labels, self._validation_labels = (
            truth_labels([scene_of(record.truth) for record in pictures.records])
            for pictures in (self._training, self._validation)
        )
        self._config = CheckerConfig(**recipe.model.model_dump())
        torch.manual_seed(recipe.run.seed)
        self.model: nn.Module = CheckerObjective(Checker(self._config).to(self._device))

    def load(self, step: int, part: range) -> tuple[Tensor, dict[str, Tensor]]:
        """Roughened pixels, and labels."""
        indices, pixels = self._training.roughened(self._recipe.run, step, part)
        return pixels, {name: column[indices] for name, column in self._training_labels.items()}

    def batch(self, loaded: tuple[Tensor, dict[str, Tensor]], share: float) -> LabelledPictures:
        """On the device."""
        pixels, labels = loaded
        moved = {name: column.to(self._device) for name, column in labels.items()}
        return LabelledPictures(pixels.to(self._device), moved, share)

    def record_ids(self, step: int, part: range) -> list[str]:
        """Scenes are known by their seeds."""
        return self._training.ids(self._recipe.run, step, part)

    def validate(self, step: int, folder: Path | None) -> dict[str, float]:
        """The shares of attributes read correctly on unseen scenes."""
        return self._shares(self.model.get_submodule("checker"))

    @torch.no_grad()
    def export(
        self, folder: Path, weights: dict[str, Tensor], held_out: dict[str, float]
    ) -> dict[str, float]:
        """Write `checker.safetensors`, and report what it reads correctly as the file gives it."""
        checker = Checker(self._config)
        checker.load_state_dict(part_weights(weights, "checker"))
        save_checker(checker, folder)
        return self._shares(load_checker(folder / CHECKER_FILE, self._device))

    def _shares(self, checker: nn.Module) -> dict[str, float]:
        """Attribute → the share of those asked for that are right; `attributes`: of all of them together."""
        num_right: dict[str, int] = {}
        num_asked: dict[str, int] = {}
        for indices in torch.arange(len(self._validation)).split(_VALIDATION_BATCH):
            logits = checker(self._validation.take(indices).to(self._device))
            labels = {
                name: column[indices].to(self._device) for name, column in self._validation_labels.items()
            }
            right, asked = verdicts(logits, labels)
            for name in right:
                num_right[name] = num_right.get(name, 0) + int((right[name] & asked[name]).sum())
                num_asked[name] = num_asked.get(name, 0) + int(asked[name].sum())
        shares = {name: num_right[name] / max(1, num_asked[name]) for name in num_right}
        return {"attributes": sum(num_right.values()) / sum(num_asked.values())} | shares


def scene_of(truth: dict[str, Any]) -> Scene:
    """What `Scene.truth` gave → the scene."""
    things = tuple(Thing(**thing) for thing in truth["things"])
    sign = None if truth["sign"] is None else Sign(**truth["sign"])
    return Scene(**truth | {"things": things, "sign": sign})
