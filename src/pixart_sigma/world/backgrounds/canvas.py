"""What every background is drawn on: size, light, style and detail, and the few ways to lay down colour.

Knows how a style fills and outlines a shape and how weather greys a colour; knows no particular background.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

from pixart_sigma.world.scene import TIMES

GROUND = 0.66
"""Height of the horizon as a share of the picture's height."""
MARGIN = 0.1
"""How far shapes reach over the picture's edges, so that no outline runs along an edge."""

_INK = "#2b2430"
_OUTLINES = (0.009, 0.007, 0.006)
_VEIL_COLOURS = {"day": "#8797aa", "sunset": "#8a6c86", "night": "#232a48"}
_VEIL_SHARES = {"cloudy": 0.14, "rain": 0.36, "snowfall": 0.1}


@cache
def mix(colour: str, other: str, share: float) -> str:
    """`colour` with `share` of `other` in it; all colours are #rrggbb."""
    pairs = ((int(colour[i : i + 2], 16), int(other[i : i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)


def patch(d: str, colour: str, opacity: float = 1) -> str:
    """A plain filled shape."""
    see_through = "" if opacity == 1 else f' fill-opacity="{opacity}"'
    return f'<path d="{d}" fill="{colour}"{see_through}/>'


def lines(d: str, colour: str, width: float, opacity: float = 1) -> str:
    """Strokes with round ends; one path may hold many."""
    see_through = "" if opacity == 1 else f' stroke-opacity="{opacity}"'
    return (
        f'<path d="{d}" fill="none" stroke="{colour}" stroke-width="{width:.4g}" '
        f'stroke-linecap="round" stroke-linejoin="round"{see_through}/>'
    )


def fade(top: str, bottom: str) -> tuple[str, str]:
    """A gradient from top to bottom: its definition and the fill that uses it. Equal colours, equal definitions."""
    name = f"fade-{top[1:]}-{bottom[1:]}"
    stops = f'<stop stop-color="{top}"/><stop offset="1" stop-color="{bottom}"/>'
    return f'<linearGradient id="{name}" x2="0" y2="1">{stops}</linearGradient>', f"url(#{name})"


@dataclass(frozen=True)
class Canvas:
    """A picture of `width` x `height`, the shorter side 1, and the light, style and detail it is drawn with.

    `seed` decides what no caption tells. Each part of a drawing has a stream of its own, so that finer detail, another
    light or another style never moves what was there before.
    """

    width: float
    height: float
    time: str | None
    weather: str | None
    style: str
    detail: int
    seed: float

    def stream(self, part: str) -> random.Random:
        """The random numbers of one part of the drawing."""
        return random.Random(f"{part} {self.seed}")

    def tone(self, day: str, sunset: str, night: str) -> str:
        """The colour of the hour, greyed by the weather."""
        if self.time is None:
            return day
        colour = (day, sunset, night)[TIMES.index(self.time)]
        share = _VEIL_SHARES.get(self.weather or "")
        return mix(colour, _VEIL_COLOURS[self.time], share) if share else colour

    def strokes(self, d: str, colour: str, width: float) -> str:
        """Broad strokes that stand for things in the picture: outlined in ink."""
        if self.style != "ink":
            return lines(d, colour, width)
        return lines(d, mix(colour, _INK, 0.62), width + 2 * _OUTLINES[self.detail] * 0.7) + lines(
            d, colour, width
        )

    def shape(self, d: str, colour: str) -> str:
        """A filled shape in the manner of the style: outlined in ink, shaded in gradient, else plain."""
        if self.style == "ink":
            outline = mix(colour, _INK, 0.62)
            return (
                f'<path d="{d}" fill="{colour}" stroke="{outline}" stroke-width="{_OUTLINES[self.detail]}" '
                'stroke-linejoin="round"/>'
            )
        if self.style == "gradient":
            definition, fill = fade(mix(colour, "#fff8e8", 0.2), mix(colour, "#4a2a68", 0.17))
            return definition + patch(d, fill)
        return patch(d, colour)
