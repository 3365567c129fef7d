"""Rain and snowfall over the whole picture, things and all.

Knows nothing of what lies beneath; clouds belong to the sky.
"""

from __future__ import annotations

import random

from pixart_sigma.world.backgrounds.canvas import lines
from pixart_sigma.world.backgrounds.scatter import scatter
from pixart_sigma.world.paths import speck


def weather_svg(
    weather: str | None, width: float, height: float, style: str, detail: int, rng: random.Random
) -> str:
    """SVG elements of what falls, "" if nothing falls. Draws once from `rng`."""
    own = random.Random(f"weather {rng.random()}")
    if weather == "rain":
        return _rain(width, height, style, detail, own)
    if weather == "snowfall":
        return _snowfall(width, height, detail, own)
    return ""


def _rain(width: float, height: float, style: str, detail: int, rng: random.Random) -> str:
    """Slanting streaks, long near ones and short far ones."""
    points = scatter(rng, round(55 * width * height))
    near = "".join(_streak(x * width, y * height, 0.075) for x, y in points[::2])
    far = "".join(_streak(x * width, y * height, 0.045) for x, y in points[1::2])
    broad = 0.013 if style == "pixel" else (0.009, 0.007, 0.006)[detail]
    fine = ""
    if detail:
        more = scatter(rng, round(90 * detail * width * height))
        fine = lines("".join(_streak(x * width, y * height, 0.03) for x, y in more), "#e4f1ff", 0.003, 0.45)
    return fine + lines(far, "#d3e6fb", broad, 0.55) + lines(near, "#e4f1ff", broad, 0.75)


def _streak(x: float, y: float, length: float) -> str:
    return f"M{x:.4g} {y:.4g}l{-0.28 * length:.4g} {length:.4g}"


def _snowfall(width: float, height: float, detail: int, rng: random.Random) -> str:
    """Flakes of two sizes, with a blue rim so that they are seen on white."""
    points = scatter(rng, round(56 * width * height))
    small = "".join(speck(x * width, y * height) for x, y in points[::2])
    large = "".join(speck(x * width, y * height) for x, y in points[1::2])
    rims = lines(small, "#7f9cc6", 0.021, 0.5) + lines(large, "#7f9cc6", 0.031, 0.5)
    flakes = lines(small, "#ffffff", 0.014) + lines(large, "#ffffff", 0.023)
    if detail:
        more = scatter(rng, round(90 * detail * width * height))
        flakes += lines("".join(speck(x * width, y * height) for x, y in more), "#ffffff", 0.006, 0.9)
    return rims + flakes
