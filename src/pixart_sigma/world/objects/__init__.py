"""How each thing is drawn: SVG in a unit box, x from -0.5 to 0.5, y from -1 (top) to 0 (the ground it stands on).

Knows nothing of scenes or of the size that a thing has in a picture.
"""

from __future__ import annotations

from functools import cache

from pixart_sigma.world.objects import air, life, made
from pixart_sigma.world.objects.paint import PAINTS
from pixart_sigma.world.objects.pen import Pen

__all__ = ["PAINTS", "thing_svg"]

_DRAWINGS = {
    drawing.__name__: drawing
    for drawing in (
        *(life.cactus, life.tree, life.cat, life.mushroom, life.flower, life.bird),
        *(made.house, made.boat, made.car, made.ball, made.cube, made.cup),
        *(air.balloon, air.sun, air.moon, air.star),
    )
}


@cache
def thing_svg(kind: str, colour: str, style: str, detail: int) -> str:
    """SVG elements of one thing of KINDS in a colour and a style of the world.

    `detail` is 0 (few elements), 1 or 2 (fine strokes for large pictures). Gradients are named after their paint,
    so that many things in one document may define the same ones.
    """
    pen = Pen(PAINTS[colour], style, detail)
    _DRAWINGS[kind](pen)
    return pen.svg()
