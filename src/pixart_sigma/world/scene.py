"""What can be in a drawn scene, how one is drawn at random from a seed, and which pairs no training may show.

Knows nothing of pixels or words. A scene is a value: two scenes with the same fields look the same.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, TypeVar

BACKGROUNDS = ("desert", "meadow", "snow", "beach", "lake", "city", "space", "room")
TIMES = ("day", "sunset", "night")
WEATHERS = ("clear", "cloudy", "rain", "snowfall")
STYLES = ("flat", "ink", "pixel", "gradient")
KINDS = (
    "cactus",
    "house",
    "tree",
    "balloon",
    "boat",
    "cat",
    "car",
    "sun",
    "moon",
    "star",
    "ball",
    "cube",
    "mushroom",
    "flower",
    "bird",
    "cup",
)
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "white", "black")
SIZES = ("small", "large")
PLACES = ("left", "middle", "right", "top", "bottom", "front", "back")
HOVERING = ("balloon", "sun", "moon", "star", "bird")
"""Kinds that hang in the air; only these are above another thing."""
MAX_COUNT = 4
WORDS = (
    "ART BAKE BLUE BOOK BUS CAFE CAKE CIAO COLD CUBE FARM FISH FOOD FREE GOLD HELLO HOME HOT ICE JAZZ "
    "LOVE MAP MILK MOON MUSIC OPEN PARK PIXEL PLAY PORT SALE SHOP SIGMA SLOW SNOW SODA STOP SUN TAXI TEA "
    "TOY WAVE WELCOME YES ZOO"
).split()
"""What signs and banners say."""

TIMES_OF: dict[str, tuple[str | None, ...]] = {"space": (None,)} | {
    name: TIMES for name in BACKGROUNDS if name != "space"
}
"""Times of day that a background can show; space has none."""
WEATHERS_OF: dict[str, tuple[str | None, ...]] = {
    "desert": ("clear", "cloudy"),
    "snow": ("clear", "cloudy", "snowfall"),
    "space": (None,),
    "room": (None,),
} | dict.fromkeys(("meadow", "beach", "lake", "city"), ("clear", "cloudy", "rain"))
"""Weather that a background can have; indoors and in space there is none."""

NATURAL_COLOUR = {
    "cactus": "green",
    "house": "orange",
    "tree": "green",
    "balloon": "red",
    "boat": "brown",
    "cat": "orange",
    "car": "blue",
    "sun": "yellow",
    "moon": "white",
    "star": "yellow",
    "ball": "purple",
    "cube": "pink",
    "mushroom": "red",
    "flower": "pink",
    "bird": "blue",
    "cup": "white",
}
"""The colour that a caption need not mention."""

NATURAL_SHARE = 0.15
"""Share of things that have their natural colour beyond chance."""
HELD_OUT_SHARE = 0.1
"""Share of (kind, colour) and of (kind, background) pairs that no training shows."""
SIGN_SHARE = 0.12
"""Share of scenes with a sign or a banner, of those that have room for one."""

_WEATHERS = {None: 1.0, "clear": 0.55, "cloudy": 0.3, "rain": 0.15, "snowfall": 0.15}
_LAYOUTS = {"single": 0.45, "row": 0.1, "pair": 0.2, "stack": 0.08, "depth": 0.07, "trio": 0.1}
_PLACES_OF = {
    "row": ("middle",),
    "pair": ("left", "right"),
    "stack": ("top", "bottom"),
    "depth": ("front", "back"),
    "trio": ("left", "middle", "right"),
}

T = TypeVar("T")


def pick(rng: random.Random, items: Sequence[T]) -> T:
    """One of `items`, uniformly. Uses only `random()`, whose sequence Python keeps from version to version."""
    return items[int(rng.random() * len(items))]


@dataclass(frozen=True)
class Thing:
    """What it is, its colour, its size, where it is in the picture, and how many of it stand in a row."""

    kind: str
    colour: str
    size: str
    place: str
    count: int = 1


@dataclass(frozen=True)
class Sign:
    """A word on a board: a "sign" stands on the ground at the left or right, a "banner" hangs at the top."""

    kind: str
    colour: str
    text: str
    place: str


@dataclass(frozen=True)
class Scene:
    """A background in some light, with one to three kinds of things, each kind once, drawn in a style.

    `layout` is single, row (several of one kind), pair (left and right), stack (one above the other), depth (one in
    front of the other) or trio. `seed` decides what no caption tells: clouds, dunes, slight shifts.
    """

    background: str
    time: str | None
    weather: str | None
    style: str
    layout: str
    things: tuple[Thing, ...]
    sign: Sign | None
    seed: int

    def truth(self) -> dict[str, Any]:
        """The scene as plain JSON types."""
        return asdict(self) | {"things": [asdict(thing) for thing in self.things]}


def _held_out(
    left: Sequence[str], right: Sequence[str], keep: Sequence[tuple[str, str]]
) -> frozenset[tuple[str, str]]:
    """The tenth of all pairs whose hashes are least. `keep` are never among them."""

    def key(pair: tuple[str, str]) -> bytes:
        return hashlib.blake2b(" ".join(pair).encode(), digest_size=8).digest()

    pairs = [pair for pair in product(left, right) if pair not in keep]
    return frozenset(sorted(pairs, key=key)[: round(HELD_OUT_SHARE * len(left) * len(right))])


HELD_OUT_COLOURS = _held_out(KINDS, COLOURS, tuple(NATURAL_COLOUR.items()))
"""(kind, colour) pairs that only tests show."""
HELD_OUT_BACKGROUNDS = _held_out(KINDS, BACKGROUNDS, (("cactus", "desert"),))
"""(kind, background) pairs that only tests show."""


def is_held_out(scene: Scene) -> bool:
    """Whether the scene shows a pair that no training may show."""
    return any(
        (thing.kind, thing.colour) in HELD_OUT_COLOURS
        or (thing.kind, scene.background) in HELD_OUT_BACKGROUNDS
        for thing in scene.things
    )


def sample_scene(seed: int, *, all_pairs: bool = False) -> Scene:
    """The scene of a seed; without held-out pairs, unless `all_pairs`, as judges must know them."""
    rng = random.Random(seed)
    background = pick(rng, BACKGROUNDS)
    time = pick(rng, TIMES_OF[background])
    weather = _choose(rng, {name: _WEATHERS[name] for name in WEATHERS_OF[background]})
    style = pick(rng, STYLES)
    layout = _choose(rng, _LAYOUTS)
    places = _PLACES_OF.get(layout) or (pick(rng, PLACES[:3]),)
    things: list[Thing] = []
    for place in places:
        kinds = [
            kind
            for kind in (HOVERING if place == "top" else KINDS)
            if kind not in {thing.kind for thing in things}
            and (all_pairs or (kind, background) not in HELD_OUT_BACKGROUNDS)
        ]
        things.append(_sample_thing(rng, kinds, place, layout, all_pairs))
    return Scene(
        background,
        time,
        weather,
        style,
        layout,
        tuple(things),
        _sample_sign(rng, background, layout, things),
        seed,
    )


def _choose(rng: random.Random, weights: Mapping[T, float]) -> T:
    left = rng.random() * sum(weights.values())
    for name, weight in weights.items():
        left -= weight
        if left < 0:
            return name
    return next(iter(weights))


def _sample_thing(
    rng: random.Random, kinds: Sequence[str], place: str, layout: str, all_pairs: bool
) -> Thing:
    kind = pick(rng, kinds)
    colours = [colour for colour in COLOURS if all_pairs or (kind, colour) not in HELD_OUT_COLOURS]
    colour = NATURAL_COLOUR[kind] if rng.random() < NATURAL_SHARE else pick(rng, colours)
    size = pick(rng, SIZES)
    if layout == "depth":
        size = "small" if place == "front" else "large"
    elif layout in ("row", "trio", "stack"):
        size = "small"
    count = 2 + int(rng.random() * (MAX_COUNT - 1)) if layout == "row" else 1
    return Thing(kind, colour, size, place, count)


def _sample_sign(rng: random.Random, background: str, layout: str, things: Sequence[Thing]) -> Sign | None:
    """A sign beside a single thing, or a banner over things that stand on the ground, or low enough in space."""
    chosen = rng.random() < SIGN_SHARE
    hovers = any(thing.kind in HOVERING for thing in things) or (background, layout) == ("space", "depth")
    if not chosen or layout in ("stack", "trio") or hovers:
        return None
    colour, text = pick(rng, COLOURS), pick(rng, WORDS)
    if layout == "single" and things[0].place != "middle" and rng.random() < 0.7:
        return Sign("sign", colour, text, "right" if things[0].place == "left" else "left")
    return Sign("banner", colour, text, "top")
