"""How plants and animals are drawn."""

from __future__ import annotations

import math

from pixart_sigma.world.objects.paint import GOLD, INK, LEAF, ROSE, STEM, WOOD
from pixart_sigma.world.objects.pen import Pen
from pixart_sigma.world.paths import oval, ovals, spokes


def _scallops(x: float, y: float, radius: float, petals: int, bulge: float) -> str:
    """A ring of round petals whose clefts lie at `radius`."""
    corners = [
        (x + radius * math.sin(2 * math.pi * i / petals), y - radius * math.cos(2 * math.pi * i / petals))
        for i in range(petals + 1)
    ]
    arcs = "".join(f"A{bulge} {bulge} 0 1 1 {cx:.3f} {cy:.3f}" for cx, cy in corners[1:])
    return f"M{corners[0][0]:.3f} {corners[0][1]:.3f}{arcs}z"


_BLOOM = _scallops(0, -0.66, 0.215, 7, 0.108)


def cactus(pen: Pen) -> None:
    """A trunk with two arms, a flower on top, and a happy face."""
    pen.limb("M-.15-.4H-.26Q-.36-.4-.36-.5V-.6M.15-.46H.26Q.36-.46.36-.56V-.7", 0.15)
    trunk = "M-.22 0V-.72A.22.23 0 0 1 .22-.72V0z"
    pen.shape(trunk)
    pen.shade("M.22 0V-.72A.22.23 0 0 0 .12-.92Q.17-.84.17-.72V-.2Q.17-.06.1 0z")
    pen.outline(trunk)
    pen.shine("M-.16-.56V-.72A.16.17 0 0 1-.07-.87Q-.04-.88-.05-.84Q-.1-.79-.1-.71V-.56Q-.13-.52-.16-.56z")
    pen.face(-0.01, -0.64, 1.0)
    pen.shape(oval(0.05, -0.95, 0.075, 0.05), GOLD)
    if pen.detail:
        pen.line("M-.1-.04V-.38M0-.04V-.38M.1-.04V-.3M-.36-.5V-.6M.36-.58V-.7", pen.paint.dark, 0.012)
        pen.line("M.02-.97V-.93M.05-.98V-.93M.08-.97V-.93", GOLD.dark, 0.01)
    if pen.detail > 1:
        spots = [(x, y / 100) for x in (-0.15, -0.05, 0.05, 0.15) for y in range(-34, -2, 8)]
        spots += [(-0.33, -0.52), (-0.39, -0.57), (0.33, -0.6), (0.39, -0.66), (-0.12, -0.8), (0.13, -0.82)]
        thorns = "".join(f"M{x - 0.014:.3f} {y - 0.018:.3f}l.014 .018l.014-.018" for x, y in spots)
        pen.line(thorns, pen.paint.light, 0.007)


def tree(pen: Pen) -> None:
    """A round crown on a trunk."""
    pen.shape("M-.1 0Q-.06-.1-.06-.4H.06Q.06-.1.1 0z", WOOD)
    left = "M-.2-.3C-.46-.28-.53-.55-.37-.65C-.4-.88-.16-1.02 0-.94"
    crown = left + "C.16-1.02.4-.88.37-.65C.53-.55.46-.28.2-.3Q0-.24-.2-.3z"
    pen.shape(crown)
    pen.shade(
        "M-.2-.3Q-.42-.29-.43-.45Q-.3-.35-.12-.41Q.06-.34.2-.44Q.35-.42.43-.5Q.44-.29.2-.3Q0-.24-.2-.3z"
    )
    pen.outline(crown)
    pen.shine("M-.27-.7Q-.27-.84-.12-.86Q-.07-.83-.11-.8Q-.2-.79-.21-.7Q-.24-.66-.27-.7z")
    if pen.detail:
        pen.line("M-.02-.02V-.2M.03-.08V-.24M-.035-.16V-.27", WOOD.dark, 0.012)
        pen.line(
            "M-.3-.55q.05.06.1 0t.1 0M.02-.68q.05.06.1 0t.1 0M-.05-.5q.05.06.1 0t.1 0", pen.paint.dark, 0.016
        )
    if pen.detail > 1:
        rows = ((-0.82, 0.22, 5), (-0.73, 0.3, 7), (-0.62, 0.32, 8), (-0.46, 0.36, 9), (-0.37, 0.32, 7))
        leaves = "".join(
            f"M{-half + 2 * half * i / num:.3f} {y + 0.02 * (-1) ** i:.3f}q.02-.03.045-.01q-.01.035-.045.01z"
            for y, half, num in rows
            for i in range(num + 1)
        )
        pen.patch(leaves, pen.paint.light, 0.8)


def cat(pen: Pen) -> None:
    """A sitting cat, seen from the front."""
    pen.limb("M.2-.08C.46-.02.46-.24.38-.38", 0.1, "dark")
    pen.shape("M-.2 0C-.36-.02-.3-.5 0-.5S.36-.02.2 0z", tone="dark")
    pen.patch("M-.13 0C-.15-.3-.08-.4 0-.4S.15-.3.13 0z", pen.paint.light)
    pen.shape(ovals((-0.13, -0.04, 0.085, 0.045), (0.13, -0.04, 0.085, 0.045)))
    pen.shape(
        "M-.32-.96Q-.3-1-.26-.97L-.14-.88Q0-.91.14-.88L.26-.97Q.3-1 .32-.96Q.37-.78.35-.65"
        "C.3-.47.14-.41 0-.41S-.3-.47-.35-.65Q-.37-.78-.32-.96z"
    )
    pen.patch("M-.28-.9L-.19-.83L-.28-.77zM.28-.9L.19-.83L.28-.77z", ROSE)
    pen.shade("M-.025-.89h.05l-.025 .11zM-.11-.88h.05l-.01 .08zM.11-.88h-.05l.01 .08z")
    eyes = pen.paint.mark if pen.paint.name != "black" else "#ffd84a"
    pen.patch(ovals((-0.15, -0.66, 0.042, 0.058), (0.15, -0.66, 0.042, 0.058)), eyes)
    pen.patch("M-.04-.58H.04L0-.53z", ROSE)
    pen.line("M-.07-.5Q-.03-.47 0-.52Q.03-.47.07-.5", pen.paint.mark, 0.02)
    if pen.detail:
        pen.line("M-.2-.55L-.43-.58M-.2-.52L-.42-.5M.2-.55L.43-.58M.2-.52L.42-.5", "#c9c3d4", 0.01)
        pen.patch(ovals((-0.163, -0.685, 0.014, 0.018), (0.137, -0.685, 0.014, 0.018)), "#ffffff")
        pen.line("M-.16-.03v.025M-.1-.03v.025M.1-.03v.025M.16-.03v.025", pen.paint.dark, 0.01)
    if pen.detail > 1:
        cheeks = "M-.33-.66l.05 .01M-.33-.62l.05 0M-.31-.58l.05-.01M.33-.66l-.05 .01M.33-.62l-.05 0M.31-.58l-.05-.01"
        fur = "".join(f"M{x:.3f} {y:.3f}l.008 .04" for x, y in _fur())
        pen.line(fur + cheeks, pen.paint.light, 0.007)


def _fur() -> list[tuple[float, float]]:
    """Where the fur shows on a cat's sides and forehead."""
    sides = [(side * (0.17 + 0.012 * row), -0.38 + 0.07 * row) for side in (-1, 1) for row in range(5)]
    return sides + [(side * (0.21 + 0.008 * row), -0.33 + 0.07 * row) for side in (-1, 1) for row in range(4)]


def mushroom(pen: Pen) -> None:
    """A spotted cap on a pale stem."""
    pen.shape("M-.15-.45C-.12-.25-.21-.12-.2-.03Q0 .03.2-.03C.21-.12.12-.25.15-.45z", STEM)
    cap = "M-.49-.44C-.49-.8-.26-.98 0-.98S.49-.8.49-.44Q.47-.35 0-.35T-.49-.44z"
    pen.shape(cap)
    pen.shade("M-.49-.44Q-.47-.35 0-.35T.49-.44Q.3-.41 0-.41T-.49-.44z")
    pen.outline(cap)
    spots = pen.paint.dark if pen.paint.name == "white" else "#ffffff"
    pen.patch(ovals((0.03, -0.78, 0.105, 0.085), (-0.27, -0.6, 0.075, 0.08), (0.29, -0.6, 0.08, 0.08)), spots)
    pen.shine("M-.36-.66Q-.3-.82-.16-.88Q-.13-.87-.15-.83Q-.26-.77-.31-.66Q-.34-.62-.36-.66z")
    if pen.detail:
        pen.patch(
            ovals((-0.08, -0.5, 0.035, 0.03), (0.14, -0.48, 0.025, 0.02), (0.18, -0.88, 0.03, 0.025)), spots
        )
        pen.line("M-.1-.2q.1.05.2 0M-.12-.3q.12.05.24 0", STEM.dark, 0.014)
    if pen.detail > 1:
        pen.line("M-.1-.33V-.24M-.05-.33V-.26M0-.33V-.25M.05-.33V-.26M.1-.33V-.24", STEM.dark, 0.008)
        pen.line(
            "M-.24 0q.01-.06-.03-.1M-.2 0q0-.06.03-.09M.22 0q0-.06.04-.1M.18 0q0-.05-.03-.08",
            LEAF.base,
            0.014,
        )


def flower(pen: Pen) -> None:
    """Seven petals on a stem with two leaves."""
    pen.shape("M-.025 0V-.4H.025V0z", LEAF)
    pen.shape(
        "M0-.02C-.06-.2-.2-.24-.33-.22C-.3-.08-.16 0 0-.02C.06-.2.2-.24.33-.22C.3-.08.16 0 0-.02z", LEAF
    )
    pen.shape(_BLOOM, tone="round")
    heart = WOOD if pen.paint.name in ("yellow", "orange") else GOLD
    if pen.detail:
        pen.line(spokes(0, -0.66, 0.13, 0.21, [i * 360 / 7 - 90 for i in range(7)]), pen.paint.dark, 0.014)
        pen.line("M-.05-.05Q-.15-.14-.25-.18M.05-.05Q.15-.14.25-.18", LEAF.light, 0.012)
    if pen.detail > 1:
        angles = [(i + 0.5) * 360 / 7 - 90 + turn for i in range(7) for turn in (-9, 0, 9)]
        pen.line(spokes(0, -0.66, 0.16, 0.27, angles), pen.paint.light, 0.007)
        pen.line("M-.12-.11l-.02-.05M-.18-.15l-.03-.03M.12-.11l.02-.05M.18-.15l.03-.03", LEAF.light, 0.007)
    pen.shape(oval(0, -0.66, 0.125, 0.125), heart, "round")
    if pen.detail > 1:
        dots = [(0.07 * math.sin(i * 2.4), -0.66 - 0.07 * math.cos(i * 2.4)) for i in range(8)]
        pen.patch(ovals(*((x, y, 0.01, 0.01) for x, y in dots)), heart.dark)


def bird(pen: Pen) -> None:
    """A round bird in flight, to the right."""
    pen.shape("M-.2-.34L-.5-.5L-.46-.36L-.49-.22L-.18-.24z", tone="dark")
    pen.shape("M.36-.56L.5-.5L.36-.43z", GOLD)
    body = (
        "M-.32-.34C-.22-.5-.05-.5.02-.58C.08-.74.36-.74.4-.54C.43-.22.24-.06.04-.06C-.14-.06-.28-.16-.32-.34z"
    )
    pen.shape(body)
    pen.patch("M.02-.06C.22-.05.37-.18.4-.4C.24-.4.06-.28.02-.06z", pen.paint.light)
    pen.outline(body)
    pen.shape("M-.24-.98C.02-.92.2-.72.16-.46C.06-.28-.12-.32-.18-.42C-.26-.58-.2-.78-.24-.98z", tone="dark")
    pen.patch(oval(0.25, -0.56, 0.036, 0.042), pen.paint.mark)
    if pen.detail:
        pen.line("M-.14-.5C-.12-.64-.12-.74-.16-.84M-.02-.46C-.02-.6-.02-.7-.08-.8", pen.paint.light, 0.014)
        pen.patch(oval(0.24, -0.575, 0.011, 0.013), "#ffffff" if pen.paint.mark == INK else INK)
        pen.line("M.37-.495L.46-.498", GOLD.dark, 0.01)
        pen.line("M-.45-.43L-.32-.36M-.45-.27L-.32-.29", pen.paint.light, 0.012)
    if pen.detail > 1:
        rows = [(x / 100, -0.3 + 0.06 * row) for row in range(3) for x in range(-14 + 5 * row, 6, 7)]
        pen.line("".join(f"M{x:.3f} {y:.3f}q.02.03.04 0" for x, y in rows), pen.paint.dark, 0.008)
        pen.line("M.04-.44C.05-.54.05-.62 0-.72M.1-.46C.12-.54.12-.58.08-.66", pen.paint.light, 0.009)
