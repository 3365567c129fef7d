"""What can be in a drawn scene, and how a scene is drawn at random from a seed.

Knows nothing of pixels or words. A scene is a value: two scenes with the same fields look the same.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

BACKGROUNDS = ("desert", "meadow", "snow", "beach", "city", "space")
KINDS = ("cactus", "house", "tree", "balloon", "car", "cat", "star", "mushroom", "ball")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
SIZES = ("small", "large")
PLACES = ("left", "centre", "right")

NATURAL_COLOUR = {
    "cactus": "green",
    "house": "orange",
    "tree": "green",
    "balloon": "red",
    "car": "blue",
    "cat": "orange",
    "star": "yellow",
    "mushroom": "red",
    "ball": "purple",
}
"""The colour that a caption need not mention."""

NATURAL_SHARE = 0.2
"""Share of things that have their natural colour beyond chance."""
PAIR_SHARE = 0.3
"""Share of scenes with two things."""

T = TypeVar("T")


def pick(rng: random.Random, items: Sequence[T]) -> T:
    """One of `items`, uniformly. Uses only `random()`, whose sequence Python keeps from version to version."""
    return items[int(rng.random() * len(items))]


@dataclass(frozen=True)
class Thing:
    """One object of a scene: what it is, its colour, its size and the third of the picture it stands in."""

    kind: str
    colour: str
    size: str
    place: str


@dataclass(frozen=True)
class Scene:
    """A background with one or two things. `seed` decides what no caption tells: clouds, dunes, slight shifts."""

    background: str
    things: tuple[Thing, ...]
    seed: int

    def truth(self) -> dict[str, Any]:
        """The scene as plain JSON types."""
        return asdict(self) | {"things": [asdict(thing) for thing in self.things]}


def sample_scene(seed: int) -> Scene:
    """The scene of a seed. Two things always stand left and right; a single one in any of the three places."""
    rng = random.Random(seed)
    background = pick(rng, BACKGROUNDS)
    if rng.random() < PAIR_SHARE:
        things: tuple[Thing, ...] = (_sample_thing(rng, "left"), _sample_thing(rng, "right"))
    else:
        things = (_sample_thing(rng, pick(rng, PLACES)),)
    return Scene(background, things, seed)


def _sample_thing(rng: random.Random, place: str) -> Thing:
    kind = pick(rng, KINDS)
    colour = NATURAL_COLOUR[kind] if rng.random() < NATURAL_SHARE else pick(rng, COLOURS)
    return Thing(kind, colour, pick(rng, SIZES), place)
