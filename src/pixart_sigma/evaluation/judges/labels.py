"""What can be asked about a picture, the possible answers, and the right ones for a scene.

Legend: N scenes, K kinds. Knows nothing of networks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pixart_sigma.world.scene import (
    BACKGROUNDS,
    COLOURS,
    KINDS,
    MAX_COUNT,
    PLACES,
    SIZES,
    STYLES,
    TIMES,
    WEATHERS,
    Scene,
)

Answer = str | int | None
ANSWERS: dict[str, tuple[Answer, ...]] = {
    "background": BACKGROUNDS,
    "time": (*TIMES, None),
    "weather": (*WEATHERS, None),
    "style": STYLES,
    "sign": (None, "sign", "banner"),
    "sign_colour": COLOURS,
    "count": tuple(range(MAX_COUNT + 1)),
    "colour": COLOURS,
    "size": SIZES,
    "place": PLACES,
}
"""Every attribute's possible answers, in the order of the labels."""
OF_PICTURE = ("background", "time", "weather", "style")
OF_SIGN = ("sign", "sign_colour")
OF_KIND = ("count", "colour", "size", "place")
UNASKED = -100
"""The label of an attribute that does not apply; torch's cross-entropy ignores it."""


def truth_labels(scenes: Sequence[Scene]) -> dict[str, Tensor]:
    """Scenes → attribute → int64 labels: (N, K) for those of OF_KIND, (N,) for the others.

    A kind that is not there has count 0 and no colour, size or place; a scene without a sign no colour of one.
    """
    labels = {name: torch.full((len(scenes),), UNASKED) for name in OF_PICTURE + OF_SIGN}
    labels |= {name: torch.full((len(scenes), len(KINDS)), UNASKED) for name in OF_KIND}
    labels["count"][:] = 0
    for row, scene in enumerate(scenes):
        for name in OF_PICTURE:
            labels[name][row] = _label(name, getattr(scene, name))
        labels["sign"][row] = _label("sign", None if scene.sign is None else scene.sign.kind)
        if scene.sign is not None:
            labels["sign_colour"][row] = _label("sign_colour", scene.sign.colour)
        for thing in scene.things:
            for name in OF_KIND:
                labels[name][row, KINDS.index(thing.kind)] = _label(name, getattr(thing, name))
    return labels


def _label(name: str, answer: Answer) -> int:
    return ANSWERS[name].index(answer)
