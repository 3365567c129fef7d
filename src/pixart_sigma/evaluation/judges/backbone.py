"""What both judges see a picture with: any picture as 128² pixels, and a small residual network over them.

Legend: N, B images, C channels of the map. Knows nothing of what is read off the map.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from pixart_sigma.data.images import to_pixels

SIDE = 128
"""The side in pixels of what judges look at."""
MAP_SIDE = 8
"""The side of the map that a backbone makes of it."""
NORM_GROUPS = 8


def judge_pixels(images: NDArray[np.uint8]) -> Tensor:
    """images (N, H, W, 3) uint8 of any size → (N, 3, 128, 128) fp32 in [-1, 1], antialiased; squeezed, not cropped."""
    pixels = to_pixels(images, torch.device("cpu"))
    if pixels.shape[-2:] == (SIDE, SIDE):
        return pixels
    return F.interpolate(pixels, (SIDE, SIDE), mode="bilinear", antialias=True).clamp(-1, 1)


class Backbone(nn.Module):
    """Pixels (B, 3, 128, 128) → a map (B, C, 8, 8), C the last of `channels`; `blocks` of them at 32², 16² and 8².

    Group norm, whose result for a picture does not depend on those beside it.
    """

    def __init__(self, channels: Sequence[int], blocks: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, channels[0], 8, stride=4, padding=2)]
        for level, num_blocks in enumerate(blocks):
            if level:
                layers.append(nn.Conv2d(channels[level - 1], channels[level], 3, stride=2, padding=1))
            layers += [_Block(channels[level]) for _ in range(num_blocks)]
        self.layers = nn.Sequential(*layers)

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels (B, 3, 128, 128) → (B, C, 8, 8)."""
        return self.layers(pixels)


class _Block(nn.Module):
    """Two 3x3 convolutions, each after norm and ReLU, beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(NORM_GROUPS, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(NORM_GROUPS, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))
