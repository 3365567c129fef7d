"""The checker: reads off a picture what is in it, where, in which colour, and in what light and style.

Legend: N, B images, K kinds, C channels of the backbone's map. Knows nothing of prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pixart_sigma.evaluation.judges.backbone import MAP_SIDE, Backbone, judge_pixels
from pixart_sigma.evaluation.judges.file import judge_file, load_judge, save_judge
from pixart_sigma.evaluation.judges.labels import ANSWERS, OF_KIND, OF_PICTURE, OF_SIGN
from pixart_sigma.world.scene import KINDS

CHECKER_FILE = "checker.safetensors"
# Without the kinds, the answers and their order a file's weights mean nothing.
_WORLD = {"kinds": list(KINDS), "answers": {name: list(answers) for name, answers in ANSWERS.items()}}
_BATCH = 64


@dataclass(frozen=True)
class CheckerConfig:
    """Channels and residual blocks at 32², 16² and 8², and the heads of the attention to the 8² map."""

    channels: Sequence[int] = (64, 128, 160)
    blocks: Sequence[int] = (1, 2, 1)
    num_heads: int = 4


@dataclass(frozen=True)
class ReadThing:
    """How many of a kind are seen, and what they look like."""

    count: int
    colour: str
    size: str
    place: str


@dataclass(frozen=True)
class Reading:
    """What is seen on a picture, in the words of a `Scene`; `things` by kind, only those that are there."""

    background: str
    time: str | None
    weather: str | None
    style: str
    things: Mapping[str, ReadThing]
    sign: str | None
    sign_colour: str | None


class Checker(nn.Module):
    """One learned query for each kind, one for signs and one for the picture attend to the backbone's map.

    All kinds share their output layers, so that a colour is learnt once.
    """

    def __init__(self, config: CheckerConfig) -> None:
        super().__init__()
        self.config = config
        width = config.channels[-1]
        self.backbone = Backbone(config.channels, config.blocks)
        self.map_norm = nn.LayerNorm(width)
        self.positions = nn.Parameter(0.2 * torch.randn(MAP_SIDE**2, width))
        self.queries = nn.Parameter(torch.randn(len(KINDS) + 2, width))
        self.to_query = nn.Linear(width, width)
        self.to_key = nn.Linear(width, width)
        self.to_value = nn.Linear(width, width)
        self.to_out = nn.Linear(width + config.num_heads, width)
        self.whole = nn.Linear(width, width)
        self.mix = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.norm = nn.LayerNorm(width)
        self.answers = nn.ModuleDict(
            {name: nn.Linear(width, len(answers)) for name, answers in ANSWERS.items()}
        )

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """pixels (B, 3, 128, 128) in [-1, 1] → attribute → logits: (B, K, answers) of kinds, (B, answers) of others."""
        seen = self.map_norm(self.backbone(pixels).flatten(2).mT)
        states = self.queries + self.whole(seen.mean(1, keepdim=True)) + self._attended(seen + self.positions)
        states = self.norm(states + self.mix(states))
        parts = {name: states[:, : len(KINDS)] for name in OF_KIND}
        parts |= dict.fromkeys(OF_SIGN, states[:, -2]) | dict.fromkeys(OF_PICTURE, states[:, -1])
        return {name: self.answers[name](part) for name, part in parts.items()}

    def _attended(self, seen: Tensor) -> Tensor:
        """seen (B, 64, C) → what each query finds there, (B, K + 2, C).

        An attention's mean forgets how much of what it looks for was there, so the scores' own height is passed on.
        """
        heads = (self.config.num_heads, -1)
        queries = self.to_query(self.queries).unflatten(-1, heads).movedim(-2, -3)
        keys, values = (
            layer(seen).unflatten(-1, heads).movedim(-2, -3) for layer in (self.to_key, self.to_value)
        )
        scores = (queries @ keys.mT).float() * queries.shape[-1] ** -0.5
        found = (scores.softmax(-1).to(values.dtype) @ values).movedim(-3, -2).flatten(-2)
        height = scores.logsumexp(-1).movedim(-2, -1)
        return self.to_out(torch.cat([found, height.to(found.dtype)], -1))


def read(checker: Checker, images: NDArray[np.uint8]) -> list[Reading]:
    """What the checker sees on each of `images` (N, H, W, 3) uint8, of any size."""
    device = checker.positions.device
    readings: list[Reading] = []
    for first in range(0, len(images), _BATCH):
        with torch.inference_mode():
            logits = checker(judge_pixels(images[first : first + _BATCH]).to(device))
        labels = {name: values.argmax(-1).tolist() for name, values in logits.items()}
        num = len(labels["sign"])
        readings += [_reading({name: column[row] for name, column in labels.items()}) for row in range(num)]
    return readings


def _reading(labels: Mapping[str, Any]) -> Reading:
    of_picture: dict[str, Any] = {name: ANSWERS[name][labels[name]] for name in OF_PICTURE + OF_SIGN}
    if of_picture["sign"] is None:
        of_picture["sign_colour"] = None
    things = {}
    for index, kind in enumerate(KINDS):
        seen: dict[str, Any] = {name: ANSWERS[name][labels[name][index]] for name in OF_KIND}
        if seen["count"]:
            things[kind] = ReadThing(**seen)
    return Reading(**of_picture, things=things)


def save_checker(checker: Checker, folder: Path) -> None:
    """Write `folder/checker.safetensors`, in bf16."""
    save_judge(checker, {"config": asdict(checker.config)} | _WORLD, folder / CHECKER_FILE)


def load_checker(path: Path | None = None, device: torch.device | str = "cpu") -> Checker:
    """The checker of a .safetensors file, or of the package, in fp32 and eval mode.

    Raises WeightsError if the file is missing, corrupt, or of a world with other things in it.
    """

    def build(description: dict[str, Any]) -> Checker:
        if any(description[key] != value for key, value in _WORLD.items()):
            raise ValueError("it was trained on a world with other things in it")
        return Checker(CheckerConfig(**description["config"]))

    return load_judge(path or judge_file(CHECKER_FILE), build).to(device)
