"""PNG grids for looking at a run."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from torch import Tensor

from pixart_sigma.pipeline.images import to_image
from pixart_sigma.weights.atomic import written_whole


def save_grid(pixels: Tensor, columns: int, path: Path) -> None:
    """Write pixels (B, 3, H, W) in [-1, 1] as rows of `columns` pictures; a last short row stays white."""
    num, _, height, width = pixels.shape
    rows = -(-num // columns)
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    for index, picture in enumerate(pixels):
        sheet.paste(to_image(picture), ((index % columns) * width, (index // columns) * height))
    with written_whole(path) as temporary:
        sheet.save(temporary)
