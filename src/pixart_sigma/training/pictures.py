"""PNG grids for looking at a run."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor


def to_uint8(pixels: Tensor) -> Tensor:
    """pixels (B, 3, H, W) in [-1, 1] → (B, H, W, 3) uint8 on the CPU."""
    scaled = (pixels.float().clamp(-1, 1) + 1) * 127.5
    return scaled.round().to(torch.uint8).permute(0, 2, 3, 1).cpu()


def save_grid(pixels: Tensor, columns: int, path: Path) -> None:
    """Write pixels (B, 3, H, W) in [-1, 1] as rows of `columns` pictures; a last short row stays white."""
    images = to_uint8(pixels)
    num, height, width, _ = images.shape
    rows = -(-num // columns)
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    for index, image in enumerate(images.numpy()):
        sheet.paste(Image.fromarray(image), ((index % columns) * width, (index // columns) * height))
    sheet.save(path)
