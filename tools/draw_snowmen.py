"""Draw captioned pictures of an object that the pocket model does not know, for the tutorial on adapters.

    python tools/draw_snowmen.py images [--number 20] [--size 256]

A snowman on six of the backgrounds that the pocket model knows, in turn; beside picture.png its caption stands in
picture.txt.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import resvg_py

from pixart_sigma.world.backgrounds import background_svg

SCARVES = {"red": "#d8343f", "blue": "#2f6fd0", "green": "#3f9b4b", "purple": "#7d4bb3"}
WHERE = {
    "desert": "in the desert",
    "meadow": "on a meadow",
    "snow": "in the snow",
    "beach": "on the beach",
    "city": "in the city",
    "space": "in space",
}
"""As in the captions that the pocket model was trained on."""
TIME = {name: "day" for name in WHERE if name != "space"}
WEATHER = dict.fromkeys(TIME, "clear")


def snowman_svg(scarf: str) -> str:
    """A snowman standing on (0, 0), one unit high."""
    ball = 'fill="#f7fafe" stroke="#9fb4cc" stroke-width="0.014"'
    coal = 'fill="#23242b"'
    buttons = "".join(f'<circle cx="0" cy="{y}" r="0.017" {coal}/>' for y in (-0.51, -0.44, -0.37))
    eyes = "".join(f'<circle cx="{x}" cy="-0.72" r="0.018" {coal}/>' for x in (-0.05, 0.05))
    arm = 'stroke="#6b4a2f" stroke-width="0.022" stroke-linecap="round" fill="none"'
    return (
        f'<circle cx="0" cy="-0.19" r="0.2" {ball}/>'
        f'<path d="M-0.13 -0.47 L-0.3 -0.6 M-0.24 -0.555 L-0.3 -0.53" {arm}/>'
        f'<path d="M0.13 -0.47 L0.3 -0.6 M0.24 -0.555 L0.3 -0.53" {arm}/>'
        f'<circle cx="0" cy="-0.45" r="0.15" {ball}/>{buttons}'
        f'<circle cx="0" cy="-0.7" r="0.115" {ball}/>{eyes}'
        '<path d="M0 -0.69 L0.13 -0.665 L0 -0.65 Z" fill="#f08a24"/>'
        f'<rect x="-0.115" y="-0.615" width="0.23" height="0.05" rx="0.025" fill="{scarf}"/>'
        f'<rect x="0.05" y="-0.6" width="0.055" height="0.15" rx="0.02" fill="{scarf}"/>'
        f'<rect x="-0.15" y="-0.815" width="0.3" height="0.028" rx="0.012" {coal}/>'
        f'<rect x="-0.095" y="-0.985" width="0.19" height="0.18" rx="0.012" {coal}/>'
        f'<rect x="-0.095" y="-0.85" width="0.19" height="0.035" fill="{scarf}"/>'
    )


def draw(number: int, size: int) -> tuple[bytes, str]:
    """Picture `number` as PNG, and its caption."""
    rng = random.Random(f"snowman {number}")
    background = list(WHERE)[number % len(WHERE)]
    colour = list(SCARVES)[number % len(SCARVES)]
    x, scale = 0.3 + 0.4 * rng.random(), 0.5 + 0.2 * rng.random()
    y = 0.62 + scale / 2 if background == "space" else 0.86 + 0.04 * rng.random()
    shadow = "" if background == "space" else (
        f'<ellipse cx="{x:.3f}" cy="{y:.3f}" rx="{0.24 * scale:.3f}" ry="{0.04 * scale:.3f}" fill-opacity="0.2"/>'
    )  # fmt: skip
    light = TIME.get(background), WEATHER.get(background)
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size}" height="{size}" viewBox="0 0 1 1">'
        f"{background_svg(background, *light, 'ink', 1, 1, 0, rng)}{shadow}"
        f'<g transform="translate({x:.3f} {y:.3f}) scale({scale:.3f})">{snowman_svg(SCARVES[colour])}</g></svg>'
    )
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True))
    return png, f"a snowman with a {colour} scarf {WHERE[background]}"


def main() -> None:
    """Parse the command line, draw, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--number", type=int, default=20)
    parser.add_argument("--size", type=int, default=256)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for number in range(arguments.number):
        png, caption = draw(number, arguments.size)
        (arguments.folder / f"snowman-{number:02d}.png").write_bytes(png)
        (arguments.folder / f"snowman-{number:02d}.txt").write_text(caption + "\n", "utf-8")
    print(f"{arguments.number} pictures and captions are in {arguments.folder}")


if __name__ == "__main__":
    main()
