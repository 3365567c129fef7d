"""Pixels as tensors → pictures.

Legend: B pictures, H, W pixels.
Knows nothing of where the pixels came from.
"""

import torch
from PIL import Image
from torch import Tensor


def to_uint8(pixels: Tensor) -> Tensor:
    """pixels (B, 3, H, W) in about [-1, 1] → (B, H, W, 3) uint8 on the CPU."""
    levels = ((pixels.float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    return levels.permute(0, 2, 3, 1).cpu()


def to_image(pixels: Tensor) -> Image.Image:
    """pixels (3, H, W) in about [-1, 1] → an 8-bit RGB image."""
    return Image.fromarray(to_uint8(pixels[None])[0].numpy())
