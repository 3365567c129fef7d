"""Where the things of a scene are: pure arithmetic from a scene and a canvas to boxes.

Lengths are in units of the picture's shorter side. Knows nothing of how a thing is drawn.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from pixart_sigma.world.scene import HOVERING, Scene, Thing

_HEIGHT_OF = {"small": 0.34, "large": 0.54}
_CROWDED_HEIGHT_OF = {"small": 0.32, "large": 0.46}
"""Heights of things, alone and beside another one."""
_CENTRE_OF = {"left": 0.29, "middle": 0.5, "right": 0.71}
_TRIO_CENTRE_OF = {"left": 0.19, "middle": 0.5, "right": 0.81}
_TRIO_HEIGHT = 0.29
_ROW_HEIGHT = {2: 0.34, 3: 0.28, 4: 0.23}
STANDS_AT = 0.88
"""Height at which things stand, as a share of the picture's."""
_LIFT = 0.2
"""How far above it things hang that hover."""


@dataclass(frozen=True)
class Box:
    """One drawn thing: x is its middle, y its lower edge, size its height."""

    kind: str
    colour: str
    x: float
    y: float
    size: float


def boxes(scene: Scene, height: float, width: float, rng: random.Random) -> list[Box]:
    """The things' boxes from back to front, on a canvas of `height` x `width`; `rng` shifts them slightly."""
    things = sorted(scene.things, key=lambda thing: thing.place == "front")
    found = []
    for thing in things:
        for number in range(thing.count):
            share_x, share_y, size = _placed(scene.layout, thing, number)
            size *= 0.96 + 0.08 * rng.random()
            x = width * share_x + 0.05 * (rng.random() - 0.5)
            y = height * share_y + 0.03 * (rng.random() - 0.5)
            if thing.place in ("top", "bottom"):
                pass
            elif scene.background == "space":
                y -= height * (STANDS_AT - 0.5) - size / 2 - (0.1 if thing.place == "front" else 0.0)
            elif thing.kind in HOVERING:
                y -= _LIFT
            found.append(Box(thing.kind, thing.colour, x, y, size))
    return found


def _placed(layout: str, thing: Thing, number: int) -> tuple[float, float, float]:
    """(x and y as shares of the canvas, size) of the `number`-th of a thing."""
    if layout == "row":
        return (number + 1) / (thing.count + 1) * 1.16 - 0.08, STANDS_AT, _ROW_HEIGHT[thing.count]
    if layout == "stack":
        return 0.5, 0.47 if thing.place == "top" else 0.93, 0.36
    if layout == "depth":
        return (0.34, 0.96, 0.34) if thing.place == "front" else (0.56, 0.82, 0.56)
    if layout == "trio":
        return _TRIO_CENTRE_OF[thing.place], STANDS_AT, _TRIO_HEIGHT
    heights = _HEIGHT_OF if layout == "single" else _CROWDED_HEIGHT_OF
    return _CENTRE_OF[thing.place], STANDS_AT, heights[thing.size]
