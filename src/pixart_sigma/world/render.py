"""A scene as SVG, and the SVG as pixels, at any size and aspect ratio.

Lengths are in units of the picture's shorter side, so that things keep their proportions whatever the aspect ratio.
A larger picture shows the same scene with finer drawing in it.
"""

from __future__ import annotations

import io
import random

import numpy as np
import resvg_py
from numpy.typing import NDArray
from PIL import Image

from pixart_sigma.world.backgrounds import background_svg
from pixart_sigma.world.layout import STANDS_AT, Box, boxes
from pixart_sigma.world.objects import thing_svg
from pixart_sigma.world.scene import HOVERING, Scene, Sign
from pixart_sigma.world.signs import sign_svg
from pixart_sigma.world.weather import weather_svg

PIXEL_GRID = 64
"""Rows or columns, whichever are fewer, of a picture in the style of pixel art."""
_FINER_FROM = (384, 1024)
"""Shorter sides in pixels from which on the first and the second level of finer drawing are shown."""
BANNER_WIDTH = 0.8
BANNER_TOP = 0.03
_SIGN_HEIGHT = 0.44
_SIGN_AT = {"left": 0.24, "right": 0.76}


def scene_svg(scene: Scene, height: int, width: int) -> str:
    """The scene as an SVG document for a picture of `height` x `width` pixels."""
    short = min(height, width)
    detail = sum(short >= limit for limit in _FINER_FROM)
    canvas_height, canvas_width = height / short, width / short
    rng = random.Random(f"drawing {scene.seed}")
    style = scene.style
    ground = background_svg(
        scene.background, scene.time, scene.weather, style, canvas_width, canvas_height, detail, rng
    )
    parts = [ground]
    if scene.sign is not None:
        parts.append(_sign(scene.sign, style, detail, canvas_height, canvas_width))
    for box in boxes(scene, canvas_height, canvas_width, rng):
        parts.append(_standing(box, scene.background, thing_svg(box.kind, box.colour, style, detail)))
    parts.append(weather_svg(scene.weather, canvas_width, canvas_height, style, detail, rng))
    view = f'viewBox="0 0 {canvas_width:.6f} {canvas_height:.6f}" preserveAspectRatio="none"'
    sharp = ' shape-rendering="crispEdges"' if style == "pixel" else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" {view}{sharp}>'
        f"{''.join(parts)}</svg>"
    )


def _standing(box: Box, background: str, drawing: str) -> str:
    shadow = ""
    if background != "space" and box.kind not in HOVERING:
        shadow = (
            f'<ellipse cx="{box.x:.4f}" cy="{box.y:.4f}" rx="{0.42 * box.size:.4f}" ry="{0.06 * box.size:.4f}" '
            'fill="#1d1830" fill-opacity="0.24"/>'
        )
    return f'{shadow}<g transform="translate({box.x:.4f} {box.y:.4f}) scale({box.size:.4f})">{drawing}</g>'


def _sign(sign: Sign, style: str, detail: int, canvas_height: float, canvas_width: float) -> str:
    drawing = sign_svg(sign, style, detail)
    if sign.kind == "banner":
        size, x, y = BANNER_WIDTH, canvas_width / 2, BANNER_TOP * canvas_height
    else:
        size, x, y = _SIGN_HEIGHT, canvas_width * _SIGN_AT[sign.place], canvas_height * STANDS_AT
    return f'<g transform="translate({x:.4f} {y:.4f}) scale({size:.4f})">{drawing}</g>'


def render(scene: Scene, height: int, width: int) -> NDArray[np.uint8]:
    """The scene as pixels: (height, width, 3), sRGB; the same scene and size give the same bytes.

    Anti-aliased, but for pixel art, which is drawn on a grid of `PIXEL_GRID` and enlarged by repeating its pixels.
    """
    short = min(height, width)
    if scene.style != "pixel" or short <= PIXEL_GRID:
        return _rasterise(scene_svg(scene, height, width))
    rows, columns = round(height * PIXEL_GRID / short), round(width * PIXEL_GRID / short)
    coarse = _rasterise(scene_svg(scene, rows, columns))
    return coarse[np.arange(height) * rows // height][:, np.arange(width) * columns // width]


def _rasterise(svg: str) -> NDArray[np.uint8]:
    png = resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True)
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGB"))
