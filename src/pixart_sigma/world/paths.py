"""Shapes as SVG path data. Knows nothing of what they mean or of how they are painted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence


def box(x: float, y: float, width: float, height: float) -> str:
    """A rectangle as path data, from its upper left corner."""
    return f"M{x:.4g} {y:.4g}h{width:.4g}v{height:.4g}h{-width:.4g}z"


def oval(x: float, y: float, rx: float, ry: float) -> str:
    """An ellipse as path data, from its centre."""
    arc = f"a{rx:.4g} {ry:.4g} 0 0 1 "
    return f"M{x - rx:.4g} {y:.4g}{arc}{2 * rx:.4g} 0{arc}{-2 * rx:.4g} 0z"


def ovals(*each: tuple[float, float, float, float]) -> str:
    """Path data of several ellipses (x, y, rx, ry)."""
    return "".join(oval(*one) for one in each)


def polygon(corners: Sequence[tuple[float, float]], x: float, y: float, rx: float, ry: float) -> str:
    """Corners given in units of `rx` and `ry` about x, y as path data."""
    return "M" + "L".join(f"{x + u * rx:.4g} {y + v * ry:.4g}" for u, v in corners) + "z"


def rounded(points: Sequence[tuple[float, float]], share: float) -> str:
    """Path data of a polygon whose corners are rounded off: `share` (0 to 0.5) of each edge bends."""
    path = ""
    for i, (x, y) in enumerate(points):
        (x0, y0), (x1, y1) = points[i - 1], points[(i + 1) % len(points)]
        start = f"{x + share * (x0 - x):.3f} {y + share * (y0 - y):.3f}"
        end = f"{x + share * (x1 - x):.3f} {y + share * (y1 - y):.3f}"
        path += f"{'L' if path else 'M'}{start}Q{x:.3f} {y:.3f} {end}"
    return path + "z"


def spokes(x: float, y: float, inner: float, outer: float, angles: Iterable[float]) -> str:
    """Path data of straight strokes away from (x, y) at `angles` (degrees, clockwise from the right)."""
    turns = [(math.cos(math.radians(angle)), math.sin(math.radians(angle))) for angle in angles]
    return "".join(
        f"M{x + inner * c:.3f} {y + inner * s:.3f}L{x + outer * c:.3f} {y + outer * s:.3f}" for c, s in turns
    )


def speck(x: float, y: float) -> str:
    """A dot as path data for `lines`, as wide as the stroke."""
    return f"M{x:.4g} {y:.4g}h.001"
