"""The beach: an open sea to the horizon, foam, and wide yellow sand."""

from __future__ import annotations

from pixart_sigma.world.backgrounds.canvas import GROUND, MARGIN, Canvas, lines, mix, patch
from pixart_sigma.world.backgrounds.land import below, crest, hill, strewn
from pixart_sigma.world.backgrounds.sky import sky
from pixart_sigma.world.paths import box, oval, speck

_HORIZON = 0.5


def beach(canvas: Canvas) -> str:
    """SVG that fills the canvas."""
    deep = canvas.tone("#1f86c8", "#8a5a9c", "#1b3a78")
    shallow = canvas.tone("#3fc4d6", "#e08a94", "#2f639a")
    foam = canvas.tone("#ffffff", "#fff0e2", "#a9c2e6")
    wet = canvas.tone("#d9b878", "#c98a62", "#5f5a78")
    sand = canvas.tone("#f7e2a6", "#f6c48c", "#8b829a")
    sea = box(-MARGIN, _HORIZON * canvas.height, canvas.width + 2 * MARGIN, canvas.height)
    waves = strewn(
        canvas,
        "waves",
        _HORIZON + 0.03,
        GROUND - 0.02,
        7 * (1 + canvas.detail),
        lambda x, y, scale, rng: f"M{x:.4g} {y:.4g}h{0.1 * scale:.4g}",
    )
    parts = [
        sky(canvas),
        canvas.shape(sea, deep),
        patch(below(canvas, crest(canvas, "shallows", GROUND - 0.05, 0.012, 0.5)), shallow),
        lines(waves, mix(deep, foam, 0.5), 0.013 if canvas.detail == 0 else 0.007),
        canvas.shape(below(canvas, crest(canvas, "surf", GROUND + 0.01, 0.018, 0.32)), foam),
        patch(below(canvas, crest(canvas, "wet", GROUND + 0.045, 0.014, 0.36)), wet),
        _groyne(canvas),
        hill(canvas, "sand", GROUND + 0.08, 0.014, 0.5, sand),
        lines(
            strewn(canvas, "shells", 0.79, 1, 7, lambda x, y, scale, rng: speck(x, y)),
            mix(sand, "#ffffff", 0.6),
            0.018,
        ),
    ]
    if canvas.detail:
        pebbles = strewn(canvas, "pebbles", 0.77, 1, 40 * canvas.detail, lambda x, y, scale, rng: speck(x, y))
        parts += [
            lines(pebbles, mix(sand, "#8a5a3a", 0.35), 0.006),
            _footprints(canvas, mix(sand, "#8a5a3a", 0.28)),
        ]
    if canvas.detail > 1:
        grains = strewn(canvas, "grains", 0.76, 1, 500, lambda x, y, scale, rng: speck(x, y))
        parts.append(lines(grains, mix(sand, "#8a5a3a", 0.25), 0.0026))
    return "".join(parts)


def _groyne(canvas: Canvas) -> str:
    """Weathered posts that stand in a row from the sand into the sea."""
    wood = canvas.tone("#8a6a50", "#6f4a54", "#383a5c")
    rng = canvas.stream("groyne")
    side, d = (1 if rng.random() < 0.5 else -1), ""
    start = canvas.width / 2 - side * canvas.width * (0.36 + 0.1 * rng.random())
    for i in range(5):
        scale = 1.15 - 0.14 * i
        x, y = start + side * 0.066 * i * (1 - 0.05 * i), (GROUND + 0.1 - 0.02 * i) * canvas.height
        d += f"M{x:.4g} {y:.4g}v{-(0.06 + 0.025 * rng.random()) * scale:.4g}"
    return canvas.strokes(d, wood, 0.026)


def _footprints(canvas: Canvas, colour: str) -> str:
    x, d = canvas.width * (0.1 + 0.5 * canvas.stream("footprints").random()), ""
    for i in range(9):
        y, scale = 0.99 - 0.022 * i, 1.15 - 0.07 * i
        d += oval(x + 0.024 * i + 0.022 * scale * (-1) ** i, y * canvas.height, 0.009 * scale, 0.014 * scale)
    return patch(d, colour)
