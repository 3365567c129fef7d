"""Pixels as tensors → pictures.

Legend: B pictures, H, W pixels.
Knows nothing of where the pixels came from.
"""

import torch
from PIL import Image
from torch import Tensor

BAND_ROWS = 256


def to_uint8(pixels: Tensor) -> Tensor:
    """pixels (B, 3, H, W) in about [-1, 1] → (B, H, W, 3) uint8 on the CPU."""
    batch, channels, height, width = pixels.shape
    levels = torch.empty(batch, height, width, channels, dtype=torch.uint8)
    # In bands: the steps between, in fp32, would take several times what the picture does.
    for top in range(0, height, BAND_ROWS):
        band = pixels[:, :, top : top + BAND_ROWS].float()
        band = ((band / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
        levels[:, top : top + BAND_ROWS] = band.permute(0, 2, 3, 1)
    return levels


def to_image(pixels: Tensor) -> Image.Image:
    """pixels (3, H, W) in about [-1, 1] → an 8-bit RGB image."""
    return Image.fromarray(to_uint8(pixels[None])[0].numpy())
