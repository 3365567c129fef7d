"""How each background is drawn: SVG over a canvas whose shorter side is 1, in any light, weather, style and detail.

Knows nothing of the things in front. One file a background; `background_svg` is the only entrance.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from pixart_sigma.world.backgrounds.beach import beach
from pixart_sigma.world.backgrounds.canvas import GROUND, Canvas
from pixart_sigma.world.backgrounds.city import city
from pixart_sigma.world.backgrounds.desert import desert
from pixart_sigma.world.backgrounds.lake import lake
from pixart_sigma.world.backgrounds.meadow import meadow
from pixart_sigma.world.backgrounds.room import room
from pixart_sigma.world.backgrounds.snow import snow
from pixart_sigma.world.backgrounds.space import space

__all__ = ["GROUND", "background_svg"]

_DRAWINGS: dict[str, Callable[[Canvas], str]] = {
    "desert": desert,
    "meadow": meadow,
    "snow": snow,
    "beach": beach,
    "lake": lake,
    "city": city,
    "space": space,
    "room": room,
}


def background_svg(
    background: str,
    time: str | None,
    weather: str | None,
    style: str,
    width: float,
    height: float,
    detail: int,
    rng: random.Random,
) -> str:
    """SVG elements that fill a canvas of `width` x `height`. Draws once from `rng`, whatever it draws on the canvas."""
    return _DRAWINGS[background](Canvas(width, height, time, weather, style, detail, rng.random()))
