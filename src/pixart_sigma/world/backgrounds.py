"""How each background is drawn: SVG over a canvas `width` x `height`, in units of the picture's shorter side.

Knows nothing of the things in front. The random generator decides what no caption tells.
"""

from __future__ import annotations

import random
from collections.abc import Callable

GROUND = 0.66
"""Height of the horizon as a share of the picture's height, before the scene's own shift."""


def background_svg(name: str, width: float, height: float, rng: random.Random) -> str:
    """SVG elements that fill the canvas."""
    return _DRAWINGS[name](width, height, rng)


def _sky(width: float, height: float, top: str, bottom: str) -> str:
    stops = f'<stop offset="0" stop-color="{top}"/><stop offset="1" stop-color="{bottom}"/>'
    gradient = f'<linearGradient id="sky" x1="0" y1="0" x2="0" y2="1">{stops}</linearGradient>'
    return f'<defs>{gradient}</defs><rect width="{width}" height="{height}" fill="url(#sky)"/>'


def _hill(width: float, height: float, left: float, middle: float, right: float, fill: str) -> str:
    """Ground whose upper edge runs through three heights (shares of the picture's height)."""
    y0, y1, y2 = left * height, middle * height, right * height
    d = (
        f"M0 {y0:.4f} C{width * 0.25:.4f} {y1:.4f} {width * 0.4:.4f} {y1:.4f} {width * 0.5:.4f} {(y0 + 2 * y1 + y2) / 4:.4f} "
        f"S{width * 0.85:.4f} {y2:.4f} {width:.4f} {y2:.4f} V{height} H0 Z"
    )
    return f'<path d="{d}" fill="{fill}"/>'


def _disc(cx: float, cy: float, radius: float, fill: str) -> str:
    return f'<circle cx="{cx:.4f}" cy="{cy:.4f}" r="{radius:.4f}" fill="{fill}"/>'


def _cloud(cx: float, cy: float, scale: float) -> str:
    puffs = ((-0.11, 0.0, 0.055), (0.0, -0.03, 0.08), (0.11, 0.0, 0.06))
    base = f'<rect x="{cx - 0.16 * scale:.4f}" y="{cy:.4f}" width="{0.33 * scale:.4f}" height="{0.055 * scale:.4f}" rx="{0.0275 * scale:.4f}" fill="#ffffff"/>'
    return base + "".join(_disc(cx + x * scale, cy + y * scale, r * scale, "#ffffff") for x, y, r in puffs)


def _desert(width: float, height: float, rng: random.Random) -> str:
    sun = _disc(width * (0.15 + 0.7 * rng.random()), height * 0.17, 0.085, "#fff2b8")
    far = _hill(
        width,
        height,
        GROUND - 0.05 - 0.08 * rng.random(),
        GROUND - 0.02,
        GROUND - 0.12 * rng.random(),
        "#e9a95f",
    )
    near = _hill(width, height, GROUND + 0.02, GROUND - 0.03 + 0.05 * rng.random(), GROUND + 0.04, "#f4c67e")
    front = _hill(width, height, 0.9, 0.88 - 0.04 * rng.random(), 0.86, "#fad899")
    return _sky(width, height, "#f7b26a", "#fde9c0") + sun + far + near + front


def _meadow(width: float, height: float, rng: random.Random) -> str:
    clouds = _cloud(width * (0.1 + 0.8 * rng.random()), height * 0.17, 0.9)
    far = _hill(
        width, height, GROUND - 0.14 * rng.random(), GROUND - 0.06, GROUND - 0.14 * rng.random(), "#79c267"
    )
    near = _hill(width, height, GROUND + 0.02, GROUND - 0.02 + 0.05 * rng.random(), GROUND + 0.01, "#97d65f")
    front = _hill(width, height, 0.9, 0.88 - 0.04 * rng.random(), 0.9, "#b3e36d")
    return _sky(width, height, "#5db4f5", "#cfeeff") + clouds + far + near + front


def _snow(width: float, height: float, rng: random.Random) -> str:
    peak = width * (0.2 + 0.6 * rng.random())
    base, top, half = height * (GROUND + 0.05), height * 0.28, 0.34
    mountain = (
        f'<path d="M{peak - half:.4f} {base} L{peak:.4f} {top} L{peak + half:.4f} {base} Z" fill="#8fa6c4"/>'
    )
    third = (base - top) * 0.3
    cap = f'<path d="M{peak - half * 0.3:.4f} {top + third:.4f} L{peak:.4f} {top} L{peak + half * 0.3:.4f} {top + third:.4f} Z" fill="#f2f7fc"/>'
    near = _hill(width, height, GROUND - 0.02, GROUND - 0.05 + 0.06 * rng.random(), GROUND, "#d8e6f4")
    front = _hill(width, height, 0.84, 0.86 - 0.04 * rng.random(), 0.82, "#eef5fb")
    return _sky(width, height, "#a9c5e6", "#e4eef8") + mountain + cap + near + front


def _beach(width: float, height: float, rng: random.Random) -> str:
    sun = _disc(width * (0.15 + 0.7 * rng.random()), height * 0.16, 0.08, "#fff4a8")
    horizon = GROUND - 0.16 + 0.04 * rng.random()
    sea = f'<rect y="{horizon * height:.4f}" width="{width}" height="{height}" fill="#2f9fd0"/>'
    surf = _hill(width, height, GROUND + 0.0, GROUND + 0.05 * rng.random(), GROUND + 0.02, "#e2f6f5")
    sand = _hill(
        width, height, GROUND + 0.035, GROUND + 0.03 + 0.05 * rng.random(), GROUND + 0.055, "#f3dca2"
    )
    return _sky(width, height, "#7fd0ee", "#e3f7fb") + sun + sea + surf + sand


def _city(width: float, height: float, rng: random.Random) -> str:
    parts = [_sky(width, height, "#b7bfd3", "#f0dfd2")]
    x, ground = 0.0, height * (GROUND + 0.06)
    while x < width:
        w, top = 0.2, height * (0.14 + 0.26 * rng.random())
        wall = ("#7d8497", "#949bad", "#6b7286")[int(3 * rng.random())]
        parts.append(
            f'<rect x="{x:.4f}" y="{top:.4f}" width="{w}" height="{ground - top:.4f}" fill="{wall}"/>'
        )
        row = top + 0.045
        while row < ground - 0.09:
            for column in (0.035, 0.115):
                parts.append(
                    f'<rect x="{x + column:.4f}" y="{row:.4f}" width="0.05" height="0.055" fill="#f6e3a1"/>'
                )
            row += 0.11
        x += w
    parts.append(f'<rect y="{ground:.4f}" width="{width}" height="{height}" fill="#c9c6c8"/>')
    road = height * 0.84
    parts.append(f'<rect y="{road:.4f}" width="{width}" height="{height}" fill="#585b66"/>')
    dash = 0.03
    while dash < width:
        parts.append(
            f'<rect x="{dash:.4f}" y="{height * 0.915:.4f}" width="0.13" height="0.025" fill="#e9e6dc"/>'
        )
        dash += 0.25
    return "".join(parts)


def _space(width: float, height: float, rng: random.Random) -> str:
    parts = [_sky(width, height, "#141033", "#33245e")]
    for _ in range(9):
        parts.append(
            _disc(width * rng.random(), height * rng.random(), 0.009 + 0.006 * rng.random(), "#f4f0ff")
        )
    cx, cy = width * (0.15 + 0.7 * rng.random()), height * 0.17
    parts.append(_disc(cx, cy, 0.085, "#d98c5f"))
    ring = f'cx="{cx:.4f}" cy="{cy:.4f}" rx="0.15" ry="0.035" transform="rotate(-18 {cx:.4f} {cy:.4f})"'
    parts.append(f'<ellipse {ring} fill="none" stroke="#f0cfa0" stroke-width="0.017"/>')
    return "".join(parts)


_DRAWINGS: dict[str, Callable[[float, float, random.Random], str]] = {
    "desert": _desert,
    "meadow": _meadow,
    "snow": _snow,
    "beach": _beach,
    "city": _city,
    "space": _space,
}
