"""The lake: still water between green shores, hills mirrored in it, reeds and lily pads."""

from __future__ import annotations

from pixart_sigma.world.backgrounds.canvas import MARGIN, Canvas, lines, mix, patch
from pixart_sigma.world.backgrounds.land import crest, hill, mountains, strewn
from pixart_sigma.world.backgrounds.sky import sky
from pixart_sigma.world.paths import box, oval

_SHORE = 0.55


def lake(canvas: Canvas) -> str:
    """SVG that fills the canvas."""
    water = canvas.tone("#4d9fdc", "#c9739a", "#2b4d93")
    light = canvas.tone("#a9d8f5", "#ffb59a", "#5c80c4")
    forest = canvas.tone("#4a9a68", "#6f5f6c", "#1d4552")
    bank = canvas.tone("#7cc25a", "#98924c", "#37785f")
    rock = canvas.tone("#8aa5bd", "#93709f", "#3d4c85")
    shore = canvas.height * _SHORE
    line = crest(canvas, "far shore", _SHORE - 0.045, 0.035, 0.4)
    far = f"{line}V{shore:.4g}H{-MARGIN}z"
    mirror = (
        f'<g transform="matrix(1 0 0 -.8 0 {1.8 * shore:.4g})">{patch(far, mix(water, forest, 0.55))}</g>'
    )
    ripples = strewn(
        canvas,
        "ripples",
        _SHORE + 0.07,
        0.8,
        9 * (1 + canvas.detail),
        lambda x, y, scale, rng: f"M{x:.4g} {y:.4g}h{(0.06 + 0.08 * rng.random()) * scale:.4g}",
    )
    pads = strewn(
        canvas, "pads", 0.69, 0.8, 4, lambda x, y, scale, rng: oval(x, y, 0.055 * scale, 0.018 * scale)
    )
    parts = [
        sky(canvas),
        mountains(canvas, _SHORE, min(0.24 * canvas.height**0.5, 0.5), 0.5, rock, mix(rock, "#ffffff", 0.55)),
        canvas.shape(far, forest),
        canvas.shape(box(-MARGIN, shore, canvas.width + 2 * MARGIN, canvas.height), water),
        mirror,
        lines(ripples, light, 0.014 if canvas.detail == 0 else 0.008),
        canvas.shape(pads, mix(bank, "#1f7a4a", 0.35)),
        hill(canvas, "near bank", 0.86, 0.02, 0.7, bank),
        _reeds(canvas),
    ]
    if canvas.detail:
        blades = strewn(
            canvas,
            "blades",
            0.87,
            1,
            70 * canvas.detail**2,
            lambda x, y, scale, rng: (
                f"M{x:.4g} {y:.4g}l{0.02 * (rng.random() - 0.5):.4g} {-0.03 * scale:.4g}"
            ),
        )
        parts.append(lines(blades, mix(bank, "#0c4a3c", 0.35), 0.005 / canvas.detail, 0.8))
    return "".join(parts)


def _reeds(canvas: Canvas) -> str:
    """Cattails at both sides of the picture."""
    stem = canvas.tone("#4a8a3c", "#5f5a3a", "#1f5048")
    brown = canvas.tone("#8a5530", "#6f3a34", "#3d3350")
    rng = canvas.stream("reeds")
    stalks, heads = "", ""
    for edge, inward in ((0.03, 1), (canvas.width - 0.03, -1)):
        for i in range(4):
            x, y = edge + inward * 0.052 * i, (0.9 - 0.01 * i) * canvas.height
            tall, lean = 0.24 + 0.13 * rng.random() - 0.03 * i, 0.02 * (rng.random() - 0.5)
            stalks += f"M{x:.4g} {y:.4g}l{lean:.4g} {-tall:.4g}"
            stalks += f"M{x:.4g} {y:.4g}q0 -.08 {0.04 * inward:.4g} {-0.5 * tall:.4g}"
            heads += f"M{x + lean:.4g} {y - tall:.4g}v.055"
    return canvas.strokes(stalks, stem, 0.015) + canvas.strokes(heads, brown, 0.03)
