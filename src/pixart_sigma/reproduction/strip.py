"""Cells' pictures side by side: a row a cell, a column a prompt. Knows nothing of how they were made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

_SIDE, _GAP = 96, 2
"""Pixels."""


@dataclass(frozen=True)
class Strip:
    """prompts: a column each. rows: a cell's label → the files of its pictures of these."""

    prompts: tuple[str, ...]
    rows: Mapping[str, Sequence[Path]]


def draw_strip(strip: Strip, file: Path) -> None:
    """As JPEG, pictures of all sizes at one."""
    step = _SIDE + _GAP
    drawn = Image.new("RGB", (step * len(strip.prompts) - _GAP, step * len(strip.rows) - _GAP), "white")
    for row, files in enumerate(strip.rows.values()):
        for column, path in enumerate(files):
            with Image.open(path) as picture:
                drawn.paste(picture.convert("RGB").resize((_SIDE, _SIDE)), (column * step, row * step))
    drawn.save(file, format="JPEG", quality=75, optimize=True)


def strip_markdown(strip: Strip, picture: str) -> str:
    """The picture, and what its rows and columns are."""
    rows, columns = "; ".join(strip.rows), "; ".join(f"“{prompt}”" for prompt in strip.prompts)
    return f"![Pictures]({picture})\n\nRows: {rows}.\n\nColumns: {columns}."
