"""How each thing is drawn: SVG in a unit box, x from -0.5 to 0.5, y from -1 (top) to 0 (the ground it stands on).

Knows nothing of scenes or sizes; `thing_svg` is the only entrance.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

INK = "#2b2430"
OUTLINE = 0.026
"""Width of the ink outline in units of the box."""


@dataclass(frozen=True)
class Paint:
    """Three tones of one colour."""

    light: str
    base: str
    dark: str


PAINTS = {
    "red": Paint("#ff7a6b", "#e5352d", "#b01c22"),
    "orange": Paint("#ffb35c", "#f5851f", "#c45f0e"),
    "yellow": Paint("#fff08a", "#fbd224", "#d3a20c"),
    "green": Paint("#7fd86a", "#3aa845", "#22783a"),
    "blue": Paint("#74b4ff", "#2b6fe0", "#1b48a5"),
    "purple": Paint("#c08cf2", "#8a3fd0", "#5f2399"),
    "pink": Paint("#ffb5d8", "#fb6fb3", "#cf4389"),
    "white": Paint("#ffffff", "#f3f3f6", "#c3c5d2"),
}


def thing_svg(kind: str, colour: str) -> str:
    """SVG elements of one thing, with ink outlines and joined corners."""
    body = _DRAWINGS[kind](PAINTS[colour])
    return f'<g stroke="{INK}" stroke-width="{OUTLINE}" stroke-linejoin="round" stroke-linecap="round">{body}</g>'


def _path(d: str, fill: str, extra: str = "") -> str:
    return f'<path d="{d}" fill="{fill}" {extra}/>'


def _ellipse(cx: float, cy: float, rx: float, ry: float, fill: str, extra: str = "") -> str:
    return f'<ellipse cx="{cx}" cy="{cy}" rx="{rx}" ry="{ry}" fill="{fill}" {extra}/>'


def _box(x: float, y: float, width: float, height: float, radius: float, fill: str, extra: str = "") -> str:
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="{radius}" fill="{fill}" {extra}/>'


_BARE = 'stroke="none"'


def _face(cx: float, cy: float, scale: float) -> str:
    """Two eyes, rosy cheeks and a smile."""
    eyes = "".join(
        _ellipse(cx + side * 0.085 * scale, cy, 0.026 * scale, 0.036 * scale, INK, _BARE) for side in (-1, 1)
    )
    cheeks = "".join(
        _ellipse(cx + side * 0.135 * scale, cy + 0.06 * scale, 0.03 * scale, 0.02 * scale, "#ff9aa8", _BARE)
        for side in (-1, 1)
    )
    left, right, low = cx - 0.075 * scale, cx + 0.075 * scale, cy + 0.17 * scale
    smile = _path(f"M{left} {cy + 0.07 * scale} Q{cx} {low} {right} {cy + 0.07 * scale}", "none")
    return eyes + cheeks + smile


def _cactus(p: Paint) -> str:
    arms = (
        "M-0.16 -0.36 H-0.27 Q-0.42 -0.36 -0.42 -0.52 V-0.62 A0.065 0.065 0 0 1 -0.29 -0.62 V-0.54 Q-0.29 -0.5 -0.25 -0.5 H-0.16 Z",
        "M0.16 -0.44 H0.27 Q0.42 -0.44 0.42 -0.6 V-0.72 A0.065 0.065 0 0 0 0.29 -0.72 V-0.62 Q0.29 -0.58 0.25 -0.58 H0.16 Z",
    )
    trunk = "M-0.2 0 V-0.78 A0.2 0.2 0 0 1 0.2 -0.78 V0 Z"
    ribs = "".join(
        _path(f"M{x} -0.04 V{top}", "none", f'stroke="{p.dark}" stroke-width="0.02"')
        for x, top in ((-0.1, -0.36), (0.1, -0.36), (0.0, -0.34))
    )
    glow = _path(
        "M-0.14 -0.5 V-0.78 A0.14 0.14 0 0 1 -0.02 -0.91", "none", f'stroke="{p.light}" stroke-width="0.04"'
    )
    flower = _ellipse(0.06, -0.96, 0.07, 0.055, "#ff6fae" if p is not PAINTS["pink"] else "#fff08a")
    return (
        "".join(_path(arm, p.base) for arm in arms)
        + _path(trunk, p.base)
        + ribs
        + glow
        + flower
        + _face(0, -0.66, 1.15)
    )


def _house(p: Paint) -> str:
    walls = _box(-0.38, -0.56, 0.76, 0.56, 0.01, p.base)
    roof = _path("M-0.48 -0.54 L0 -0.98 L0.48 -0.54 Z", p.dark)
    chimney = _box(0.2, -0.94, 0.12, 0.26, 0.01, p.dark)
    door = _box(-0.09, -0.34, 0.18, 0.34, 0.03, "#6d4526") + _ellipse(
        0.045, -0.16, 0.016, 0.016, "#fbd224", _BARE
    )
    windows = "".join(
        _box(x, -0.42, 0.16, 0.16, 0.015, "#ffe9a3")
        + _path(f"M{x + 0.08} -0.42 v0.16 M{x} -0.34 h0.16", "none")
        for x in (-0.31, 0.15)
    )
    return chimney + walls + roof + door + windows


def _tree(p: Paint) -> str:
    trunk = _path("M-0.07 0 L-0.055 -0.42 H0.055 L0.07 0 Z", "#8a5a33")
    crown = _path(
        "M-0.2 -0.32 C-0.46 -0.3 -0.5 -0.58 -0.33 -0.66 C-0.36 -0.9 -0.12 -1.02 0 -0.93 "
        "C0.12 -1.02 0.36 -0.9 0.33 -0.66 C0.5 -0.58 0.46 -0.3 0.2 -0.32 Z",
        p.base,
    )
    shine = _ellipse(-0.13, -0.75, 0.11, 0.085, p.light, _BARE)
    shade = _path(
        "M-0.2 -0.38 C0 -0.33 0.2 -0.36 0.32 -0.5", "none", f'stroke="{p.dark}" stroke-width="0.035"'
    )
    return trunk + crown + shine + shade


def _balloon(p: Paint) -> str:
    string = _path("M0 -0.33 C0.09 -0.24 -0.09 -0.14 0.01 0", "none")
    knot = _path("M-0.05 -0.3 L0 -0.38 L0.05 -0.3 Z", p.dark)
    skin = _path(
        "M0 -0.36 C-0.2 -0.42 -0.33 -0.58 -0.33 -0.7 A0.33 0.29 0 0 1 0.33 -0.7 C0.33 -0.58 0.2 -0.42 0 -0.36 Z",
        p.base,
    )
    shine = _ellipse(-0.14, -0.8, 0.07, 0.1, p.light, f'{_BARE} transform="rotate(25 -0.14 -0.8)"')
    return string + knot + skin + shine


def _car(p: Paint) -> str:
    cabin = _path(
        "M-0.28 -0.36 L-0.19 -0.58 Q-0.17 -0.62 -0.12 -0.62 H0.13 Q0.18 -0.62 0.21 -0.58 L0.32 -0.36 Z",
        p.dark,
    )
    panes = "".join(
        _path(d, "#cfeaff")
        for d in ("M-0.2 -0.37 L-0.14 -0.55 H-0.01 V-0.37 Z", "M0.04 -0.37 V-0.55 H0.14 L0.23 -0.37 Z")
    )
    body = _path(
        "M-0.49 -0.12 V-0.27 Q-0.49 -0.36 -0.4 -0.37 H0.34 Q0.49 -0.35 0.49 -0.22 V-0.12 Q0.49 -0.1 0.46 -0.1 H-0.46 Q-0.49 -0.1 -0.49 -0.12 Z",
        p.base,
    )
    lamp = _ellipse(0.43, -0.25, 0.035, 0.04, "#fff3b0")
    shine = _path("M-0.38 -0.3 H0.24", "none", f'stroke="{p.light}" stroke-width="0.03"')
    wheels = "".join(
        _ellipse(x, -0.1, 0.11, 0.11, "#3a3a44") + _ellipse(x, -0.1, 0.045, 0.045, "#d9d9e0", _BARE)
        for x in (-0.27, 0.27)
    )
    return cabin + panes + body + lamp + shine + wheels


def _cat(p: Paint) -> str:
    tail = _path("M0.24 -0.08 C0.46 -0.04 0.46 -0.3 0.36 -0.4", "none", f'stroke="{INK}" stroke-width="0.12"')
    tail += _path(
        "M0.24 -0.08 C0.46 -0.04 0.46 -0.3 0.36 -0.4", "none", f'stroke="{p.base}" stroke-width="0.07"'
    )
    body = _path("M-0.27 0 C-0.31 -0.34 -0.18 -0.5 0 -0.5 C0.18 -0.5 0.31 -0.34 0.27 0 Z", p.base)
    belly = _ellipse(0, -0.14, 0.12, 0.14, p.light, _BARE)
    paws = "".join(_ellipse(x, -0.03, 0.085, 0.045, p.light) for x in (-0.12, 0.12))
    head = _path(
        "M-0.31 -0.98 L-0.15 -0.88 Q0 -0.92 0.15 -0.88 L0.31 -0.98 Q0.35 -0.76 0.32 -0.64 "
        "C0.28 -0.48 0.14 -0.43 0 -0.43 C-0.14 -0.43 -0.28 -0.48 -0.32 -0.64 Q-0.35 -0.76 -0.31 -0.98 Z",
        p.base,
    )
    eyes = "".join(_ellipse(x, -0.69, 0.04, 0.055, INK, _BARE) for x in (-0.14, 0.14))
    nose = _path("M-0.035 -0.6 H0.035 L0 -0.565 Z", "#ff8fa3", 'stroke-width="0.012"')
    mouth = _path("M-0.07 -0.53 Q-0.03 -0.5 0 -0.56 Q0.03 -0.5 0.07 -0.53", "none", 'stroke-width="0.018"')
    whiskers = _path(
        "M-0.2 -0.58 H-0.4 M-0.2 -0.54 L-0.39 -0.5 M0.2 -0.58 H0.4 M0.2 -0.54 L0.39 -0.5",
        "none",
        'stroke-width="0.014"',
    )
    return tail + body + belly + paws + head + eyes + nose + mouth + whiskers


def _star(p: Paint) -> str:
    points = []
    for i in range(10):
        radius, angle = (0.5 if i % 2 == 0 else 0.23), math.pi * (i / 5 - 0.5)
        points.append(f"{radius * math.cos(angle):.4f} {-0.48 + radius * math.sin(angle):.4f}")
    body = _path("M" + " L".join(points) + " Z", p.base)
    return body + _path("M-0.08 -0.66 L-0.02 -0.78", "none", f'stroke="{p.light}" stroke-width="0.06"')


def _mushroom(p: Paint) -> str:
    stem = _path(
        "M-0.15 -0.45 C-0.12 -0.25 -0.2 -0.12 -0.19 -0.02 Q0 0.03 0.19 -0.02 C0.2 -0.12 0.12 -0.25 0.15 -0.45 Z",
        "#f7ead2",
    )
    cap = _path(
        "M-0.48 -0.44 C-0.48 -0.78 -0.26 -0.96 0 -0.96 C0.26 -0.96 0.48 -0.78 0.48 -0.44 Q0 -0.34 -0.48 -0.44 Z",
        p.base,
    )
    dot = "#ffffff" if p is not PAINTS["white"] else "#e58f8f"
    dots = "".join(
        _ellipse(cx, cy, rx, ry, dot, _BARE)
        for cx, cy, rx, ry in (
            (0.02, -0.78, 0.1, 0.08),
            (-0.27, -0.6, 0.075, 0.075),
            (0.28, -0.6, 0.08, 0.075),
        )
    )
    return stem + cap + dots


def _ball(p: Paint) -> str:
    circle = _ellipse(0, -0.42, 0.42, 0.42, p.base)
    band = _path(
        "M-0.412 -0.5 Q0 -0.28 0.412 -0.5 A0.42 0.42 0 0 1 0.412 -0.34 Q0 -0.12 -0.412 -0.34 A0.42 0.42 0 0 1 -0.412 -0.5 Z",
        "#ffffff" if p is not PAINTS["white"] else "#8fb6e8",
        'stroke-width="0.018"',
    )
    shine = _ellipse(-0.15, -0.68, 0.08, 0.055, p.light, f'{_BARE} transform="rotate(-30 -0.15 -0.68)"')
    return circle + band + shine


_DRAWINGS: dict[str, Callable[[Paint], str]] = {
    "cactus": _cactus,
    "house": _house,
    "tree": _tree,
    "balloon": _balloon,
    "car": _car,
    "cat": _cat,
    "star": _star,
    "mushroom": _mushroom,
    "ball": _ball,
}
