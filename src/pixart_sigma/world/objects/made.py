"""How the things that people make are drawn."""

from __future__ import annotations

from pixart_sigma.world.objects.paint import CREAM, GLASS, GOLD, STEM, TYRE, WOOD
from pixart_sigma.world.objects.pen import Pen
from pixart_sigma.world.paths import box, oval, ovals, rounded, spokes


def house(pen: Pen) -> None:
    """Walls with two lit windows and a door, a roof and a chimney."""
    pen.shape(box(0.2, -0.95, 0.13, 0.3), tone="dark")
    pen.shape(box(-0.39, -0.58, 0.78, 0.58))
    if pen.detail > 1:
        rows = [(-0.52 + 0.065 * i, 0.06 * (i % 2)) for i in range(8)]
        bricks = "".join(f"M-.38 {y:.3f}H.38" for y, _ in rows) + "".join(
            f"M{-0.36 + shift + 0.12 * i:.3f} {y:.3f}v.065" for y, shift in rows for i in range(6)
        )
        pen.line(bricks, pen.paint.dark, 0.006, 0.6)
    pen.shape(rounded([(-0.5, -0.54), (0, -1.0), (0.5, -0.54)], 0.06), tone="dark")
    pen.shape("M-.1 0V-.26A.1.1 0 0 1 .1-.26V0z", WOOD, "dark" if pen.paint.name == "brown" else "base")
    pen.shape(box(-0.31, -0.44, 0.16, 0.17) + box(0.15, -0.44, 0.16, 0.17), GOLD, "light")
    pen.line("M-.23-.44v.17M-.31-.355h.16M.23-.44v.17M.15-.355h.16", WOOD.dark, 0.02)
    pen.patch(oval(0.055, -0.16, 0.02, 0.02), GOLD.base)
    if pen.detail:
        pen.line("M-.36-.6H.36M-.26-.69H.26M-.16-.78H.16M-.06-.87H.06", pen.paint.base, 0.012)
        curtains = "M-.31-.44h.07q0 .06-.07 .09zM-.15-.44h-.07q0 .06.07 .09zM.15-.44h.07q0 .06-.07 .09z"
        pen.patch(curtains + "M.31-.44h-.07q0 .06.07 .09z", "#ffffff", 0.85)
        pen.line("M-.33-.255h.2M.13-.255h.2M-.12-.01h.24", STEM.dark, 0.022)
    if pen.detail > 1:
        tiles = "".join(
            f"M{x / 100:.2f} {y / 100}v.04"
            for y, half in ((-60, 36), (-69, 26), (-78, 16))
            for x in range(-half, half, 6)
        )
        pen.line(tiles, pen.paint.base, 0.008)
        pen.line("M-.05-.02V-.28M0-.02V-.33M.05-.02V-.13M.05-.19V-.28", WOOD.dark, 0.008)
        pen.line("M.2-.88h.13M.2-.81h.13M.26-.95v.07M.24-.88v.07", pen.paint.base, 0.008)


def boat(pen: Pen) -> None:
    """A sailing boat."""
    pen.shape(box(-0.03, -0.98, 0.06, 0.72), WOOD)
    pen.shape("M.05-.96C.3-.8.42-.55.44-.36H.05z", tone="light")
    pen.shape("M-.05-.88C-.12-.66-.24-.48-.38-.36H-.05z", STEM)
    hull = "M-.5-.3H.5C.46-.12.38 0 .26 0H-.24C-.38 0-.46-.12-.5-.3z"
    pen.shape(hull)
    pen.shade("M-.46-.17C-.42-.07-.36 0-.24 0H.26C.35 0 .43-.07.455-.17z")
    pen.outline(hull)
    if pen.detail:
        pen.line("M-.46-.24H.46M-.39-.1H.39", pen.paint.light, 0.012)
        pen.shape(
            ovals((-0.2, -0.19, 0.035, 0.035), (0, -0.19, 0.035, 0.035), (0.2, -0.19, 0.035, 0.035)), GLASS
        )
        pen.line("M0-.98L-.48-.32M.02-.98L.48-.32", WOOD.dark, 0.008)
        pen.line("M.05-.6Q.25-.62.37-.58", pen.paint.base, 0.03)
    if pen.detail > 1:
        pen.line(
            "M.05-.78Q.15-.79.23-.76M.05-.46Q.25-.5.42-.46M-.14-.62H-.06M-.22-.5H-.06", pen.paint.base, 0.006
        )
        grain = "M-.42-.2q.05.02.1 0M-.14-.13q.06.02.12 0M.26-.2q.06.02.12 0M-.34-.05q.08.02.16 0M.1-.05q.08.02.2 0"
        pen.line(grain, pen.paint.dark, 0.008)
        pen.line("M-.01-.9h.02M-.01-.74h.02M-.01-.58h.02M-.01-.42h.02", WOOD.light, 0.01)


def car(pen: Pen) -> None:
    """A small round car, to the right."""
    pen.shape("M-.34-.36C-.3-.6-.22-.7-.04-.7S.26-.62.34-.36z", tone="dark")
    pen.shape("M-.26-.38C-.23-.54-.18-.62-.04-.63V-.38zM.03-.38V-.63C.15-.61.21-.52.25-.38z", GLASS)
    body = (
        "M-.5-.13V-.26C-.5-.38-.42-.42-.3-.42H.3C.42-.42.5-.34.5-.24V-.13Q.5-.09.46-.09H-.46Q-.5-.09-.5-.13z"
    )
    pen.shape(body)
    pen.shade("M-.5-.19H.5V-.13Q.5-.09.46-.09H-.46Q-.5-.09-.5-.13z")
    pen.outline(body)
    pen.shine("M-.42-.33Q-.4-.37-.32-.37H-.04Q0-.35-.04-.33H-.36Q-.4-.3-.42-.33z")
    pen.shape(oval(0.44, -0.29, 0.04, 0.05), GOLD, "light")
    pen.shape(ovals((-0.28, -0.12, 0.125, 0.12), (0.28, -0.12, 0.125, 0.12)), TYRE)
    pen.patch(ovals((-0.28, -0.12, 0.055, 0.055), (0.28, -0.12, 0.055, 0.055)), "#e6e6ee")
    if pen.detail:
        pen.line("M-.04-.4V-.12M-.14-.12V-.4M.06-.34H.13", pen.paint.dark, 0.012)
        pen.line("M-.2-.44L-.14-.56M.08-.44L.13-.55", "#ffffff", 0.022)
        pen.line("M-.49-.13H-.41M.41-.13H.49", "#d9d9e0", 0.025)
    if pen.detail > 1:
        bolts = [(x, -0.12, 0.02, 0.052, range(0, 360, 60)) for x in (-0.28, 0.28)]
        pen.line("".join(spokes(*bolt) for bolt in bolts), "#8b8b99", 0.01)
        treads = [(x, -0.12, 0.095, 0.118, range(0, 360, 24)) for x in (-0.28, 0.28)]
        pen.line("".join(spokes(*tread) for tread in treads), TYRE.light, 0.008)
        pen.line("M-.46-.27H-.38M-.46-.24H-.38", pen.paint.light, 0.01)


def ball(pen: Pen) -> None:
    """A ball with a white band."""
    disc = oval(0, -0.45, 0.45, 0.45)
    pen.shape(disc, tone="round")
    band = "#ffffff" if pen.paint.name != "white" else pen.paint.dark
    pen.patch("M-.448-.5Q0-.3.448-.5A.45.45 0 0 1 .435-.335Q0-.13-.435-.335A.45.45 0 0 1-.448-.5z", band)
    pen.shade("M-.37-.2Q0 .02.37-.2A.45.45 0 0 1-.37-.2z")
    pen.outline(disc)
    pen.shine("M-.31-.6Q-.27-.76-.1-.81Q-.06-.8-.09-.76Q-.22-.72-.25-.6Q-.28-.56-.31-.6z")
    if pen.detail:
        pen.line("M-.43-.49Q0-.31.43-.49M-.42-.33Q0-.14.42-.33", pen.paint.dark, 0.014)
        pen.line("M0-.9C.14-.75.2-.55.18-.42", pen.paint.dark, 0.012)
    if pen.detail > 1:
        seams = "M-.42-.46Q0-.26.42-.46M-.41-.37Q0-.17.41-.37"
        pen.line(seams, pen.paint.base, 0.006)
        grip = [
            (x / 100, -0.75 + y / 100, 0.007, 0.007) for y in range(0, 21, 7) for x in range(-21 - y, 10, 8)
        ]
        pen.patch(ovals(*grip), pen.paint.dark, 0.5)


def cube(pen: Pen) -> None:
    """A toy block that shows three faces."""
    pen.shape("M0-.98L.46-.75L0-.51L-.46-.75z", tone="light")
    pen.shape("M-.46-.75L0-.51V0L-.46-.24z")
    pen.shape("M.46-.75L0-.51V0L.46-.24z", tone="dark")
    if pen.detail:
        pen.line("M0-.92L.35-.75L0-.57L-.35-.75z", pen.paint.base, 0.016)
        pen.line("M-.41-.66L-.05-.47V-.08L-.41-.27z", pen.paint.light, 0.016)
        pen.line("M.41-.66L.05-.47V-.08L.41-.27z", pen.paint.base, 0.016)
    if pen.detail > 1:
        grain = "M-.36-.58L-.1-.44M-.36-.5L-.16-.4M-.36-.42L-.1-.28M-.3-.32L-.1-.21M-.36-.28L-.2-.2"
        pen.line(grain, pen.paint.dark, 0.007)
        pen.line(
            "M.36-.58L.1-.44M.36-.5L.2-.42M.36-.42L.1-.28M.3-.32L.1-.21M.36-.28L.2-.2", pen.paint.base, 0.007
        )
        pen.line("M-.2-.75L.05-.87M-.1-.7L.2-.84M.02-.66L.22-.76", pen.paint.base, 0.007)


def cup(pen: Pen) -> None:
    """A steaming mug."""
    pen.line("M-.12-.8q-.06-.07 0-.13M.08-.8q-.06-.07 0-.13", "#c9c6d6", 0.04)
    pen.limb("M.26-.54H.36Q.44-.54.44-.44V-.34Q.44-.22.32-.22H.22", 0.09, "dark")
    body = "M-.38-.68H.3L.25-.1Q.24 0 .14 0H-.22Q-.32 0-.33-.1z"
    pen.shape(body)
    pen.shade("M.17-.66H.3L.25-.1Q.24 0 .14 0H.04Q.14 0 .15-.1z")
    pen.outline(body)
    pen.shine("M-.3-.54Q-.27-.58-.24-.54L-.22-.2Q-.24-.16-.27-.2z")
    pen.shape(oval(-0.04, -0.68, 0.34, 0.07), tone="light")
    pen.patch(oval(-0.04, -0.67, 0.27, 0.045), "#6b4226" if pen.paint.name != "brown" else "#3d2413")
    if pen.detail:
        pen.patch(
            "M-.04-.2C-.16-.3-.16-.42-.09-.42Q-.05-.42-.04-.38Q-.03-.42.01-.42C.08-.42.08-.3-.04-.2z",
            pen.paint.light,
        )
        pen.line("M-.31-.09Q-.04-.06.23-.09", pen.paint.dark, 0.014)
        pen.line("M-.24-.68Q-.04-.63.14-.68", CREAM, 0.014)
    if pen.detail > 1:
        dots = [(-0.3 + 0.08 * i, -0.55 + 0.004 * i * (7 - i), 0.012, 0.012) for i in range(8)]
        pen.patch(ovals(*dots), pen.paint.light)
        pen.line("M-.1-.66q.05-.025.1 0t.1 0", CREAM, 0.008)
