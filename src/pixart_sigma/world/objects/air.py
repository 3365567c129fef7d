"""How the things that hang in the air are drawn, but for the bird."""

from __future__ import annotations

import math

from pixart_sigma.world.objects.paint import CORD, ROSE
from pixart_sigma.world.objects.pen import Pen
from pixart_sigma.world.paths import oval, ovals, rounded, spokes


def _wheel(x: float, y: float, outer: float, inner: float, points: int) -> list[tuple[float, float]]:
    """Corners of a star with `points` points, the first at the top."""
    return [
        (
            x + (inner if i % 2 else outer) * math.sin(math.pi * i / points),
            y - (inner if i % 2 else outer) * math.cos(math.pi * i / points),
        )
        for i in range(2 * points)
    ]


_STAR = rounded(_wheel(0, -0.48, 0.54, 0.27, 5), 0.22)
_RAYS = rounded(_wheel(0, -0.5, 0.52, 0.33, 10), 0.12)
_THIN_RAYS = rounded(_wheel(0, -0.5, 0.47, 0.3, 20), 0.1)


def balloon(pen: Pen) -> None:
    """A toy balloon on a string."""
    pen.line("M0-.3C.1-.22-.1-.12.02 0", CORD, 0.022)
    pen.shape("M-.07-.27L0-.38L.07-.27z", tone="dark")
    pen.shape("M0-.34C-.21-.4-.37-.54-.37-.68A.37.32 0 0 1 .37-.68C.37-.54.21-.4 0-.34z", tone="round")
    pen.shine("M-.27-.68C-.27-.82-.16-.91-.06-.92C-.1-.86-.17-.8-.18-.67A.045.045 0 0 1-.27-.68z")
    if pen.detail:
        pen.line("M.28-.62C.24-.5.14-.43.06-.4M-.03-.31L0-.36L.03-.31", pen.paint.dark, 0.014)
        pen.patch(oval(-0.225, -0.58, 0.026, 0.03), "#ffffff", 0.6)
    if pen.detail > 1:
        pen.line(
            "M-.15-.43C-.24-.54-.28-.62-.28-.68M.15-.43C.25-.54.29-.7.24-.8M0-.37V-.97",
            pen.paint.dark,
            0.006,
            0.5,
        )
        pen.patch(
            "M.15-.89q.07.04.1.1l-.06.04q-.03-.06-.09-.09zM.26-.77q.02.05.02.09h-.07q0-.03-.01-.06z",
            "#ffffff",
            0.35,
        )


def sun(pen: Pen) -> None:
    """A disc with a face and ten rays."""
    if pen.detail:
        pen.shape(_THIN_RAYS, tone="light")
    pen.shape(_RAYS, tone="dark")
    pen.shape(oval(0, -0.5, 0.3, 0.3), tone="round")
    pen.shine("M-.23-.52A.24.24 0 0 1-.05-.73Q-.04-.7-.07-.68A.2.2 0 0 0-.18-.52Q-.2-.49-.23-.52z")
    pen.face(0, -0.52, 1.1)
    if pen.detail > 1:
        pen.line(spokes(0, -0.5, 0.34, 0.45, range(-90, 270, 36)), pen.paint.light, 0.012)
        pen.line("M-.02-.36q.02.02.04 0M-.13-.61q.03-.03.06 0M.07-.61q.03-.03.06 0", pen.paint.mark, 0.01)


def moon(pen: Pen) -> None:
    """A crescent, asleep."""
    pen.shape("M.3-.92A.47.47 0 1 0 .36-.16A.39.39 0 0 1 .3-.92z", tone="round")
    pen.shade(ovals((-0.2, -0.75, 0.06, 0.055), (0.06, -0.15, 0.05, 0.04), (-0.29, -0.42, 0.035, 0.035)))
    pen.line("M-.17-.53q.045.05.09 0M-.18-.34q.04.06.1.04", pen.paint.mark, 0.028)
    if pen.detail:
        pen.shade(ovals((-0.05, -0.84, 0.03, 0.025), (-0.17, -0.2, 0.025, 0.02), (-0.35, -0.55, 0.02, 0.025)))
        pen.patch(oval(-0.2, -0.42, 0.035, 0.022), ROSE)
    if pen.detail > 1:
        pen.line(
            "M-.24-.77q.03-.04.09-.03M.02-.16q.03-.03.08-.01M-.32-.43q.02-.02.06 0", pen.paint.light, 0.008
        )
        pen.line("M-.165-.52l-.02.02M-.125-.505v.03M-.085-.52l.02.02", pen.paint.mark, 0.01)


def star(pen: Pen) -> None:
    """Five round points, with a face."""
    pen.shape(_STAR, tone="round")
    pen.shine("M-.09-.72L-.02-.88Q.02-.92.03-.86L-.04-.7Q-.08-.68-.09-.72z")
    pen.face(0, -0.51, 0.9)
    if pen.detail:
        pen.line(spokes(0, -0.48, 0.3, 0.4, (-18, 54, 126, 198)), pen.paint.dark, 0.014)
    if pen.detail > 1:
        pen.line(spokes(0, -0.48, 0.17, 0.22, range(-54, 306, 72)), pen.paint.light, 0.01)
        glitter = [(0.2, -0.6, 0.012, 0.012), (-0.25, -0.58, 0.01, 0.01), (0.16, -0.24, 0.01, 0.01)]
        pen.patch(ovals(*glitter, (-0.18, -0.2, 0.012, 0.012), (0.32, -0.62, 0.008, 0.008)), pen.paint.light)
