"""The shapes of land: rolling hills, mountains, and what is strewn over the ground.

Knows how land is shaped, not which background it belongs to or what colour it has.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from pixart_sigma.world.backgrounds.canvas import MARGIN, Canvas, lines, mix, patch
from pixart_sigma.world.backgrounds.scatter import scatter
from pixart_sigma.world.paths import polygon

_PEAK = ((-1, 0), (0, -1), (1, 0))
_SHADOW = ((0, -1), (1, 0), (0.25, 0), (-0.06, -0.5))
_CAP = ((0, -1), (0.36, -0.64), (0.18, -0.75), (0.02, -0.6), (-0.16, -0.76), (-0.36, -0.64))


def crest(canvas: Canvas, part: str, level: float, swing: float, step: float) -> str:
    """A rolling line from edge to edge as path data: crests and dips by turns, about `step` apart.

    `level` is a share of the picture's height, `swing` a length.
    """
    rng = canvas.stream(part)
    count = max(2, round((canvas.width + 2 * MARGIN) / step))
    sign = 1 if rng.random() < 0.5 else -1
    d, x, y = "", 0.0, 0.0
    for i in range(count + 1):
        to_x = -MARGIN + (canvas.width + 2 * MARGIN) * i / count
        to_y = level * canvas.height + sign * swing * (0.35 + 0.65 * rng.random())
        middle = (x + to_x) / 2
        d += (
            f"C{middle:.4g} {y:.4g} {middle:.4g} {to_y:.4g} {to_x:.4g} {to_y:.4g}"
            if i
            else f"M{to_x:.4g} {to_y:.4g}"
        )
        x, y, sign = to_x, to_y, -sign
    return d


def below(canvas: Canvas, line: str) -> str:
    """All that lies under a line from edge to edge."""
    return f"{line}V{canvas.height + MARGIN:.4g}H{-MARGIN}z"


def hill(canvas: Canvas, part: str, level: float, swing: float, step: float, colour: str) -> str:
    """Ground under a rolling line; in ink its crest shines."""
    line = crest(canvas, part, level, swing, step)
    body = canvas.shape(below(canvas, line), colour)
    if canvas.style != "ink":
        return body
    shine = lines(line, mix(colour, "#ffffff", 0.3), 0.012)
    return body + f'<g transform="translate(0 .017)">{shine}</g>'


def mountains(canvas: Canvas, base: float, tallest: float, step: float, rock: str, snow: str) -> str:
    """A range of snow-capped peaks, lit from the left. `base` is a share of the height, `tallest` a length."""
    rng = canvas.stream("mountains")
    count = max(2, round(canvas.width / step) + 1)
    shift = rng.random() - 0.5
    peaks = []
    for i in range(count):
        x = (i + 0.5 + shift * 0.6 + 0.3 * (rng.random() - 0.5)) * canvas.width / (count - 0.5) - 0.1
        peaks.append((tallest * (0.55 + 0.45 * rng.random()), x))
    return "".join(
        _peak(canvas, x, base * canvas.height, rise, rock, snow) for rise, x in sorted(peaks, reverse=True)
    )


def _peak(canvas: Canvas, x: float, foot: float, rise: float, rock: str, snow: str) -> str:
    half = 0.85 * rise
    parts = [
        canvas.shape(polygon(_PEAK, x, foot, half, rise), rock),
        patch(polygon(_SHADOW, x, foot, half, rise), mix(rock, "#1d2050", 0.2)),
        canvas.shape(polygon(_CAP, x, foot, half, rise), snow),
    ]
    if canvas.detail:
        rng = canvas.stream(f"rock {x:.4f}")
        cracks = "".join(
            f"M{x + half * u:.4g} {foot - rise * (0.1 + 0.35 * rng.random()):.4g}l{0.03 * rise:.4g} {0.1 * rise:.4g}"
            f"l{-0.04 * rise:.4g} {0.09 * rise:.4g}"
            for u in (-0.42, -0.2, 0.12, 0.38)[: 2 * canvas.detail]
        )
        parts.append(lines(cracks, mix(rock, "#1d2050", 0.35), 0.005))
    return "".join(parts)


def strewn(
    canvas: Canvas,
    part: str,
    top: float,
    bottom: float,
    density: float,
    one: Callable[[float, float, float, random.Random], str],
) -> str:
    """Path data of what is strewn over the ground between two shares of the height, `density` pieces for each unit
    of the picture's area.

    `one` draws a piece at x, y in a scale that grows from 0.6 at the horizon to 1.2 at the lower edge.
    """
    rng = canvas.stream(part)
    points = scatter(rng, round(density * canvas.width * canvas.height))
    pieces = sorted((top + (bottom - top) * v, u) for u, v in points)
    return "".join(
        one(u * canvas.width, y * canvas.height, 0.6 + 0.6 * (y - top) / (1 - top), rng) for y, u in pieces
    )
