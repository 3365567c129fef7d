"""A scene as SVG, and the SVG as pixels, at any size and aspect ratio.

Lengths are in units of the picture's shorter side, so that things keep their proportions whatever the aspect ratio.
"""

from __future__ import annotations

import io
import random

import numpy as np
import resvg_py
from numpy.typing import NDArray
from PIL import Image

from pixart_sigma.world.backgrounds import background_svg
from pixart_sigma.world.objects import thing_svg
from pixart_sigma.world.scene import Scene, Thing

HEIGHT_OF = {"small": 0.34, "large": 0.54}
"""Height of a thing as a share of the picture's shorter side."""
CENTRE_OF = {"left": 0.26, "centre": 0.5, "right": 0.74}
"""Where a thing stands, as a share of the picture's width."""
STANDS_AT = 0.87
"""The ground under a thing, as a share of the picture's height."""
LIFT_OF = {"balloon": 0.14, "star": 0.16}
"""Things that hover above the ground, in units of the shorter side."""


def scene_svg(scene: Scene, height: int, width: int) -> str:
    """The scene as an SVG document for a picture of `height` x `width` pixels."""
    short = min(height, width)
    canvas_height, canvas_width = height / short, width / short
    rng = random.Random(f"drawing {scene.seed}")
    parts = [background_svg(scene.background, canvas_width, canvas_height, rng)]
    for thing in scene.things:
        parts.append(_placed(thing, scene.background, canvas_height, canvas_width, rng))
    view = f'viewBox="0 0 {canvas_width:.6f} {canvas_height:.6f}" preserveAspectRatio="none"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" {view}>{"".join(parts)}</svg>'


def _placed(
    thing: Thing, background: str, canvas_height: float, canvas_width: float, rng: random.Random
) -> str:
    size = HEIGHT_OF[thing.size] * (0.96 + 0.08 * rng.random())
    x = canvas_width * CENTRE_OF[thing.place] + 0.04 * (rng.random() - 0.5)
    y = canvas_height * STANDS_AT + 0.03 * (rng.random() - 0.5)
    drawing = thing_svg(thing.kind, thing.colour)
    if background == "space":
        y -= canvas_height * 0.36 - size / 2
        shadow = ""
    else:
        y -= LIFT_OF.get(thing.kind, 0.0)
        lift = LIFT_OF.get(thing.kind, 0.0)
        shadow = (
            f'<ellipse cx="{x:.4f}" cy="{y + lift:.4f}" rx="{0.42 * size:.4f}" ry="{0.06 * size:.4f}" '
            'fill="#2b2430" fill-opacity="0.22"/>'
        )
    return f'{shadow}<g transform="translate({x:.4f} {y:.4f}) scale({size:.4f})">{drawing}</g>'


def render(scene: Scene, height: int, width: int) -> NDArray[np.uint8]:
    """The scene as pixels: (height, width, 3), sRGB, anti-aliased; the same scene and size give the same bytes."""
    png = resvg_py.svg_to_bytes(svg_string=scene_svg(scene, height, width), skip_system_fonts=True)
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGB"))
