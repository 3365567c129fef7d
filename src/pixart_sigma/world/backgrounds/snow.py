"""The snow: white-capped mountains behind white drifts."""

from __future__ import annotations

from pixart_sigma.world.backgrounds.canvas import GROUND, Canvas, lines, mix
from pixart_sigma.world.backgrounds.land import hill, mountains, strewn
from pixart_sigma.world.backgrounds.sky import sky
from pixart_sigma.world.paths import speck


def snow(canvas: Canvas) -> str:
    """SVG that fills the canvas."""
    rock = canvas.tone("#7f9ac0", "#8573a8", "#43548f")
    far = canvas.tone("#cfe0f2", "#d9bfdc", "#7d92c6")
    near = canvas.tone("#e2edf8", "#edd3e2", "#9aaeda")
    front = canvas.tone("#f4f9fe", "#fbe8ea", "#b7c8ea")
    cap = canvas.tone("#f8fbff", "#ffe4e2", "#a9bbe6")
    rise = min(0.4 * canvas.height**0.5, 0.9)
    shade = canvas.tone("#bcd2ea", "#cfaed4", "#8299cc")
    drifts = strewn(
        canvas,
        "drifts",
        0.77,
        0.96,
        5 * (1 + canvas.detail),
        lambda x, y, scale, rng: (
            f"M{x:.4g} {y:.4g}q{0.05 * scale:.4g} {-0.022 * scale:.4g} {0.11 * scale:.4g} 0"
        ),
    )
    parts = [
        sky(canvas),
        mountains(canvas, GROUND + 0.02, rise, 0.42, rock, cap),
        hill(canvas, "far drift", GROUND + 0.0, 0.03, 0.5, far),
        hill(canvas, "near drift", GROUND + 0.08, 0.03, 0.7, near),
        hill(canvas, "front drift", 0.86, 0.03, 0.9, front),
        lines(drifts, shade, 0.015 if canvas.detail == 0 else 0.009),
    ]
    if canvas.detail:
        glints = strewn(canvas, "glints", 0.7, 1, 50 * canvas.detail**2, lambda x, y, scale, rng: speck(x, y))
        parts.append(lines(glints, shade, 0.005))
    if canvas.detail > 1:
        sparkle = strewn(
            canvas,
            "sparkle",
            0.7,
            1,
            60,
            lambda x, y, scale, rng: f"M{x - 0.005:.4g} {y:.4g}h.01m-.005-.005v.01",
        )
        parts.append(lines(sparkle, mix(front, "#ffffff", 0.8), 0.002))
    return "".join(parts)
