"""The meadow: rolling green hills, a wooden fence, grass with tiny blossoms."""

from __future__ import annotations

import random

from pixart_sigma.world.backgrounds.canvas import GROUND, Canvas, lines, mix
from pixart_sigma.world.backgrounds.land import hill, strewn
from pixart_sigma.world.backgrounds.sky import sky
from pixart_sigma.world.paths import speck


def meadow(canvas: Canvas) -> str:
    """SVG that fills the canvas."""
    far = canvas.tone("#5fb463", "#7c8a4e", "#22505a")
    near = canvas.tone("#84cc5c", "#95a14a", "#2c6358")
    front = canvas.tone("#a9e068", "#b3b950", "#3a7a5c")
    grass = mix(front, "#0c4a3c", 0.38)
    parts = [
        sky(canvas),
        hill(canvas, "far hill", GROUND - 0.06, 0.07, 0.55, far),
        hill(canvas, "near hill", GROUND + 0.05, 0.03, 0.8, near),
        _fence(canvas),
        hill(canvas, "front hill", 0.86, 0.025, 0.9, front),
        lines(strewn(canvas, "tufts", 0.76, 0.97, 6, _tuft), grass, 0.015),
        lines(_blossoms(canvas, "white", 7), canvas.tone("#ffffff", "#ffe3d0", "#b9c8e8"), 0.016),
        lines(_blossoms(canvas, "gold", 6), canvas.tone("#ffe14d", "#ffb347", "#a8a070"), 0.016),
    ]
    if canvas.detail:
        blades = strewn(canvas, "blades", 0.72, 1, 90 * canvas.detail**2, _blade)
        parts.append(lines(blades, grass, 0.0055 / canvas.detail, 0.7))
        parts.append(
            lines(
                _blossoms(canvas, "more", 24 * canvas.detail),
                canvas.tone("#ffffff", "#ffe3d0", "#b9c8e8"),
                0.008,
            )
        )
    return "".join(parts)


def _tuft(x: float, y: float, scale: float, rng: random.Random) -> str:
    """Three blades from one root."""
    side, up = 0.021 * scale, 0.028 * scale
    return (
        f"M{x - side:.4g} {y - up:.4g}L{x:.4g} {y:.4g}v{-1.5 * up:.4g}M{x:.4g} {y:.4g}l{side:.4g} {-up:.4g}"
    )


def _blade(x: float, y: float, scale: float, rng: random.Random) -> str:
    lean = 0.024 * scale * (rng.random() - 0.5)
    return f"M{x:.4g} {y:.4g}q{0.004 * scale:.4g} {-0.02 * scale:.4g} {lean:.4g} {-0.036 * scale:.4g}"


def _blossoms(canvas: Canvas, part: str, density: float) -> str:
    return strewn(canvas, part, 0.75, 1, density, lambda x, y, scale, rng: speck(x, y))


def _fence(canvas: Canvas) -> str:
    wood = canvas.tone("#b98a5c", "#8a5a4a", "#4c4a63")
    rng = canvas.stream("fence")
    length = canvas.width * (0.4 + 0.3 * rng.random())
    start = -0.05 if rng.random() < 0.5 else canvas.width + 0.05 - length
    y, posts = (GROUND + 0.1) * canvas.height, round(length / 0.12)
    d = f"M{start:.4g} {y - 0.03:.4g}h{length:.4g}m0-.045h{-length:.4g}"
    d += "".join(f"M{start + length * (i + 0.5) / posts:.4g} {y:.4g}v-.105" for i in range(posts))
    return canvas.strokes(d, wood, 0.018)
