"""The validation pictures of a run: which are put into its report, as data, and which are linked."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

_STEP = re.compile(r"step-(\d+)(?:-(.+))?\.png")
_LONGEST_SIDE = 1600
_QUALITY = 85


@dataclass(frozen=True)
class Picture:
    """A file beside the report (`link`, relative to it), and its content as a `data:` address or None."""

    step: int
    label: str
    link: str
    width: int = 0
    height: int = 0
    data: str | None = None


def step_pictures(output: Path, step: int) -> dict[str, Path]:
    """Label ("grid" if a file has none) → file, of the pictures that the validation after `step` steps has left."""
    return {label or "grid": path for found, label, path in _files(output) if found == step}


def gather_pictures(output: Path) -> tuple[list[Picture], list[Picture]]:
    """Pictures `output/samples/step-NNNNNNNN[-LABEL].png` → those of the first, middle and last step, and the others.

    The former carry their content, in WebP of at most 1600 pixels a side; what cannot be read is left out.
    """
    found = _files(output)
    chosen = first_middle_last(sorted({step for step, _, _ in found}))
    embedded, linked = [], []
    for step, label, path in found:
        picture = Picture(step, label, f"samples/{path.name}")
        if step not in chosen:
            linked.append(picture)
        elif (content := _encoded(path)) is not None:
            width, height, data = content
            embedded.append(Picture(step, label, picture.link, width, height, data))
    return embedded, linked


def first_middle_last(steps: Sequence[int]) -> set[int]:
    """At most three of the rising `steps`; the middle one is the nearest to half-way between the others."""
    if not steps:
        return set()
    half_way = (steps[0] + steps[-1]) / 2
    return {steps[0], min(steps, key=lambda step: abs(step - half_way)), steps[-1]}


def _files(output: Path) -> list[tuple[int, str, Path]]:
    """Step, label and file of each picture, by step."""
    return sorted(
        (int(match[1]), match[2] or "", path)
        for path in (output / "samples").glob("step-*.png")
        if (match := _STEP.fullmatch(path.name))
    )


def _encoded(path: Path) -> tuple[int, int, str] | None:
    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    picture.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=_QUALITY)
    return *picture.size, "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
