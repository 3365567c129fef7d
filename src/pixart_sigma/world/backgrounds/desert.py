"""The desert: red table mountains and dunes of sand."""

from __future__ import annotations

from pixart_sigma.world.backgrounds.canvas import GROUND, Canvas, lines, mix, patch
from pixart_sigma.world.backgrounds.land import hill, strewn
from pixart_sigma.world.backgrounds.sky import sky
from pixart_sigma.world.paths import polygon, speck

_TABLE = (
    (-1, 0),
    (-0.78, -0.55),
    (-0.64, -0.55),
    (-0.56, -1),
    (0.56, -1),
    (0.64, -0.55),
    (0.78, -0.55),
    (1, 0),
)
_STRATUM = ((-0.6, -0.77), (0.6, -0.77), (0.62, -0.64), (-0.62, -0.64))


def desert(canvas: Canvas) -> str:
    """SVG that fills the canvas."""
    far = canvas.tone("#e0a055", "#d4733f", "#5f4c70")
    near = canvas.tone("#efbd6c", "#e88f45", "#786079")
    front = canvas.tone("#f8d68f", "#f5ac5a", "#8f7485")
    parts = [
        sky(canvas),
        _tables(canvas),
        hill(canvas, "far dune", GROUND - 0.01, 0.04, 0.5, far),
        hill(canvas, "near dune", GROUND + 0.07, 0.035, 0.7, near),
        hill(canvas, "front dune", 0.86, 0.035, 0.8, front),
    ]
    if canvas.detail:
        ripples = strewn(
            canvas,
            "ripples",
            0.77,
            1,
            14 * canvas.detail,
            lambda x, y, scale, rng: (
                f"M{x:.4g} {y:.4g}q{0.03 * scale:.4g} {-0.014 * scale:.4g} {0.06 * scale:.4g} 0t{0.06 * scale:.4g} 0"
            ),
        )
        pebbles = strewn(canvas, "pebbles", 0.76, 1, 12 * canvas.detail, lambda x, y, scale, rng: speck(x, y))
        parts += [
            lines(ripples, mix(front, "#a8552a", 0.3), 0.005),
            lines(pebbles, mix(far, "#6b3a30", 0.35), 0.009),
        ]
    if canvas.detail > 1:
        grains = strewn(canvas, "grains", 0.74, 1, 420, lambda x, y, scale, rng: speck(x, y))
        parts.append(lines(grains, mix(front, "#a8552a", 0.35), 0.0028))
    return "".join(parts)


def _tables(canvas: Canvas) -> str:
    rock = canvas.tone("#c8704a", "#a2484f", "#4a3763")
    rng = canvas.stream("tables")
    foot, count = (GROUND + 0.03) * canvas.height, max(2, round(1.8 * canvas.width))
    parts = []
    for i in range(count):
        x = canvas.width * (i + 0.25 + 0.5 * rng.random()) / count
        half, rise = 0.13 + 0.1 * rng.random(), (0.17 + 0.12 * rng.random()) * canvas.height**0.5
        parts.append(canvas.shape(polygon(_TABLE, x, foot, half, rise), rock))
        parts.append(patch(polygon(_STRATUM, x, foot, half, rise), mix(rock, "#ffe0b0", 0.25)))
        if canvas.detail:
            clefts = "".join(
                f"M{x + u * half:.4g} {foot - 0.88 * rise:.4g}v{rise * (0.3 + 0.4 * rng.random()):.4g}"
                for u in (-0.4, -0.1, 0.25, 0.45)
            )
            parts.append(lines(clefts, mix(rock, "#3a1a40", 0.3), 0.006))
    return "".join(parts)
