"""Pictures side by side, a column for each precision, and below each what differs from the first column.

Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

AMPLIFICATION = 8
"""Differences are shown so many times as large, on black."""
_CELL_SIDE = 384
_GAP = 8
_LINE = 24
_FONT_SIZE = 14
_INK, _PAPER = "#1f2328", "white"

Picture = NDArray[np.uint8]


def draw_sheet(prompts: Sequence[str], columns: Mapping[str, Sequence[Picture]]) -> Image.Image:
    """Names of columns → pictures (H, W, 3), one a prompt, of one size; the first column is what the others should be.

    A picture larger than a cell is shown smaller, and so is its difference, after it was taken.
    """
    names = list(columns)
    wanted = columns[names[0]]
    height, width = wanted[0].shape[:2]
    scale = min(1.0, _CELL_SIDE / max(height, width))
    cell = (max(1, round(width * scale)), max(1, round(height * scale)))
    # With more letters than Pillow's own.
    font = ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), _FONT_SIZE)
    row = _LINE + 2 * (cell[1] + _GAP)
    sheet = Image.new(
        "RGB", (len(names) * (cell[0] + _GAP) + _GAP, _LINE + _GAP + len(prompts) * row + _GAP), _PAPER
    )
    pen = ImageDraw.Draw(sheet)
    for column, name in enumerate(names):
        pen.text((_GAP + column * (cell[0] + _GAP), _GAP), name, _INK, font)
    for index, prompt in enumerate(prompts):
        top = _LINE + _GAP + index * row
        pen.text((_GAP, top), _cut(prompt, sheet.width - 2 * _GAP, font), _INK, font)
        for column, name in enumerate(names):
            left = _GAP + column * (cell[0] + _GAP)
            shown = columns[name][index]
            sheet.paste(_fitted(shown, cell), (left, top + _LINE))
            below = (left, top + _LINE + cell[1] + _GAP)
            if column:
                sheet.paste(_fitted(amplified_difference(shown, wanted[index]), cell), below)
            else:
                pen.text(below, f"differences\n× {AMPLIFICATION}", _INK, font)
    return sheet


def amplified_difference(found: Picture, wanted: Picture) -> Picture:
    """(H, W, 3) each → the size of the difference of each value, amplified, at most white."""
    difference = np.abs(found.astype(np.int16) - wanted.astype(np.int16))
    return np.minimum(difference * AMPLIFICATION, 255).astype(np.uint8)


def _fitted(picture: Picture, cell: tuple[int, int]) -> Image.Image:
    image = Image.fromarray(picture)
    return image if image.size == cell else image.resize(cell, Image.Resampling.LANCZOS)


def _cut(text: str, width: int, font: ImageFont.FreeTypeFont) -> str:
    """One line that fits."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"
