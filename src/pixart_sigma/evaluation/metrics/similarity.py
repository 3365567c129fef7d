"""How much a picture is like the one that it should be, value by value.

PSNR, and SSIM: Wang, Bovik, Sheikh and Simoncelli 2004, "Image Quality Assessment: From Error Visibility to Structural
Similarity". Knows nothing of what made the pictures.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pixart_sigma.errors import InvalidInput

_WHITE = 255
_WINDOW, _DEVIATION = 11, 1.5
_C1, _C2 = (0.01 * _WHITE) ** 2, (0.03 * _WHITE) ** 2


def psnr(found: NDArray[np.uint8], wanted: NDArray[np.uint8]) -> float:
    """Two pictures (H, W, 3) → peak signal-to-noise ratio in dB, infinite for equal ones.

    Raises InvalidInput for two sizes.
    """
    _check_sizes(found, wanted)
    squared = float(np.square(found.astype(np.float64) - wanted.astype(np.float64)).mean())
    return 10 * math.log10(_WHITE**2 / squared) if squared else math.inf


def ssim(found: NDArray[np.uint8], wanted: NDArray[np.uint8]) -> float:
    """Two pictures (H, W, 3) → the mean of structural similarity, 1 for equal ones.

    As in the paper: Gaussian windows of 11 x 11 pixels, deviation 1.5, only where a whole one fits; here in each of
    the three channels, at the pictures' own size. Raises InvalidInput for two sizes, and for less than a window.
    """
    _check_sizes(found, wanted)
    if min(found.shape[:2]) < _WINDOW:
        raise InvalidInput(
            f"SSIM of pictures of {found.shape[1]}x{found.shape[0]} has no window of {_WINDOW}x{_WINDOW}; "
            "compare larger ones"
        )
    ours, theirs = (
        torch.from_numpy(each.astype(np.float64)).movedim(2, 0)[:, None] for each in (found, wanted)
    )
    parts = torch.cat([ours, theirs, ours * ours, theirs * theirs, ours * theirs])  # five of three channels
    mean_1, mean_2, square_1, square_2, product = _weighted_means(parts).chunk(5)
    variances = square_1 - mean_1.square() + square_2 - mean_2.square()
    covariance = product - mean_1 * mean_2
    brightness = (2 * mean_1 * mean_2 + _C1) / (mean_1.square() + mean_2.square() + _C1)
    return float((brightness * (2 * covariance + _C2) / (variances + _C2)).mean())


def _weighted_means(values: Tensor) -> Tensor:
    """(N, 1, H, W) → (N, 1, H - 10, W - 10), over each window."""
    places = torch.arange(_WINDOW, dtype=values.dtype) - _WINDOW // 2
    weights = torch.exp(-places.square() / (2 * _DEVIATION**2))
    weights /= weights.sum()
    return F.conv2d(F.conv2d(values, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1))


def _check_sizes(found: NDArray[np.uint8], wanted: NDArray[np.uint8]) -> None:
    if found.shape != wanted.shape:
        raise InvalidInput(
            f"pictures {found.shape} and {wanted.shape} cannot be compared; make both of one size"
        )
