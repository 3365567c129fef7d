"""Space: violet dark, clouds of gas, tiny lights, and the edge of a huge ringed planet.

The planet is larger than the picture, so that it is never taken for a ball or a moon.
"""

from __future__ import annotations

from pixart_sigma.world.backgrounds.canvas import Canvas, lines, mix, patch
from pixart_sigma.world.backgrounds.land import crest
from pixart_sigma.world.backgrounds.scatter import scatter
from pixart_sigma.world.backgrounds.sky import lights
from pixart_sigma.world.paths import box, oval, speck

_DARK = "#17103a"
_GASES = ("#2e1d63", "#4a2a7c", "#6b3a8c")
_PLANET, _PALE, _DEEP = "#3f9f9a", "#68bfb0", "#2d7d88"
_RING = "#e9b48a"
_RADIUS = 0.42


def space(canvas: Canvas) -> str:
    """SVG that fills the canvas."""
    parts = [patch(box(0, 0, canvas.width, canvas.height), _DARK), _gas(canvas)]
    parts.append(lights(canvas, 30 * 2**canvas.detail, canvas.height))
    if canvas.detail:
        points = scatter(canvas.stream("dust"), round(120 * canvas.detail * canvas.width * canvas.height))
        dust = "".join(speck(x * canvas.width, y * canvas.height) for x, y in points)
        parts.append(lines(dust, "#b9a4ea", 0.003))
    parts.append(_planet(canvas))
    return "".join(parts)


def _gas(canvas: Canvas) -> str:
    """Broad bands of gas from edge to edge, each inside the one before."""
    parts = []
    for i, colour in enumerate(_GASES):
        line = crest(canvas, "gas", 0.4, 0.16 * canvas.height, 0.5)
        broad = (0.44 - 0.14 * i) * canvas.height**0.5
        soft = 0.5 if canvas.style == "gradient" else 1
        parts.append(lines(line, colour, broad, soft))
    return "".join(parts)


def _planet(canvas: Canvas) -> str:
    """A limb with cloud bands and a ring, in a lower corner."""
    side = -1 if canvas.stream("planet").random() < 0.5 else 1
    x, y = canvas.width / 2 + side * (canvas.width / 2 - 0.05), canvas.height + 0.06
    parts = [canvas.shape(oval(0, 0, _RADIUS, _RADIUS), _PLANET)]
    for upper, lower, colour in ((0.8, 0.62, _PALE), (0.44, 0.3, _DEEP), (0.16, 0.02, _PALE)):
        parts.append(patch(_belt(upper, lower), colour))
    if canvas.detail:
        belts = "".join(_belt(0.95 - 0.09 * i, 0.935 - 0.09 * i) for i in range(11))
        parts.append(patch(belts, _DEEP, 0.35))
    reach = 1.55 * _RADIUS
    arcs = [f"M{-reach:.4g} 0A{reach:.4g} .13 0 0 {front} {reach:.4g} 0" for front in (1, 0)]
    parts.insert(0, canvas.strokes(arcs[0], mix(_RING, _DARK, 0.4), 0.045))
    parts.append(canvas.strokes(arcs[1], _RING, 0.045))
    if canvas.detail:
        parts.append(lines(arcs[1], mix(_RING, _DARK, 0.3), 0.006))
    return f'<g transform="translate({x:.4g} {y:.4g}) rotate({side * 24})">{"".join(parts)}</g>'


def _belt(upper: float, lower: float) -> str:
    """A stripe around the planet between two heights, shares of its radius, that sags a little."""
    y0, y1 = -upper * _RADIUS, -lower * _RADIUS
    x0, x1 = (_RADIUS * (1 - share**2) ** 0.5 for share in (upper, lower))
    return (
        f"M{-x0:.4g} {y0:.4g}Q0 {y0 + 0.07:.4g} {x0:.4g} {y0:.4g}"
        f"A{_RADIUS} {_RADIUS} 0 0 1 {x1:.4g} {y1:.4g}Q0 {y1 + 0.07:.4g} {-x1:.4g} {y1:.4g}"
        f"A{_RADIUS} {_RADIUS} 0 0 1 {-x0:.4g} {y0:.4g}z"
    )
