"""How signs and banners are drawn: a board on a post, a cloth on two cords.

A sign's box has x from -0.5 to 0.5 and y from -1 (top) to 0 (the ground); a banner's has y from 0 (what it hangs
from) to 0.22. Knows nothing of where in a picture they are.
"""

from __future__ import annotations

from functools import cache

from pixart_sigma.world.lettering import word_svg
from pixart_sigma.world.objects.paint import CORD, PAINTS, WOOD
from pixart_sigma.world.objects.pen import Pen
from pixart_sigma.world.paths import box, ovals, rounded
from pixart_sigma.world.scene import Sign


@cache
def sign_svg(sign: Sign, style: str, detail: int) -> str:
    """SVG elements of a sign or a banner with its word, in a style of the world and with a detail of 0, 1 or 2."""
    pen = Pen(PAINTS[sign.colour], style, detail)
    return (_board if sign.kind == "sign" else _banner)(pen, sign.text)


def _board(pen: Pen, text: str) -> str:
    pen.shape(box(-0.06, -0.5, 0.12, 0.5), WOOD)
    if pen.detail:
        pen.line("M-.03-.4V-.04M.02-.42V-.2M.03-.14V-.03", WOOD.dark, 0.012)
    pen.shape(rounded([(-0.5, -1.0), (0.5, -1.0), (0.5, -0.45), (-0.5, -0.45)], 0.09))
    if pen.detail:
        pen.line(
            rounded([(-0.47, -0.97), (0.47, -0.97), (0.47, -0.48), (-0.47, -0.48)], 0.07),
            pen.paint.dark,
            0.01,
        )
    if pen.detail > 1:
        pen.line("M-.44-.94q.3.02.5 0t.36 0M-.43-.5q.2-.02.4 0t.45 0", pen.paint.dark, 0.006)
        pen.patch(ovals(*((x, y, 0.012, 0.012) for x in (-0.45, 0.45) for y in (-0.94, -0.51))), WOOD.dark)
    return pen.svg() + f'<g transform="translate(0 -.725)">{word_svg(text, 0.88, 0.38, pen.paint.mark)}</g>'


def _banner(pen: Pen, text: str) -> str:
    # Drawn at twice its size: a banner is as wide as a picture, and its outline would be as broad as two.
    pen.line("M-.88 0V.1M.88 0V.1", CORD, 0.028)
    pen.shape("M-.98.06Q0 .09.98.06L.93.23L.98.42Q0 .44-.98.42L-.93.23z")
    if pen.detail:
        pen.line("M-.91.1Q0 .125.91.1M-.91.385Q0 .405.91.385", pen.paint.dark, 0.01)
        pen.patch(ovals((-0.88, 0.095, 0.018, 0.018), (0.88, 0.095, 0.018, 0.018)), "#e6e6ee")
    if pen.detail > 1:
        folds = "M-.9.16q.04.08 0 .16M.9.16q-.04.08 0 .16M-.4.1v.02M.4.1v.02M-.4.385v.02M0 .39v.02M.4.385v.02"
        pen.line(folds, pen.paint.dark, 0.008)
    word = f'<g transform="translate(0 .25)">{word_svg(text, 1.7, 0.25, pen.paint.mark)}</g>'
    return f'<g transform="scale(.5)">{pen.svg()}{word}</g>'
