"""How far embeddings, and pictures, are from those that they should be.

Legend: L caption tokens, C channels.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pixart_sigma.evaluation.metrics.similarity import psnr


@dataclass(frozen=True)
class EmbeddingFigures:
    """Of some tokens' embeddings: the cosine between each and what it should be, and the root mean square of the
    difference beside that of what it should be.
    """

    cosine_mean: float
    cosine_min: float
    relative_error: float


@dataclass(frozen=True)
class PictureFigures:
    """Of pictures in 8 bits: peak signal-to-noise ratio in dB, the median and the least of all, None where nothing
    differs; and the mean difference of a value, out of 255.
    """

    psnr: float | None
    psnr_min: float | None
    mean_difference: float


def embedding_figures(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> EmbeddingFigures:
    """Embeddings (L, C) of several prompts, and what they should be → figures over all their tokens."""
    cosines: list[Tensor] = []
    difference = size = 0.0
    for ours, theirs in zip(found, wanted, strict=True):
        ours, theirs = ours.double(), theirs.double()
        norms = ours.norm(dim=-1) * theirs.norm(dim=-1)
        cosines.extend((ours * theirs).sum(-1) / norms)
        difference += float((ours - theirs).square().sum())
        size += float(theirs.square().sum())
    values = [float(cosine) for cosine in cosines]
    return EmbeddingFigures(math.fsum(values) / len(values), min(values), math.sqrt(difference / size))


def picture_figures(
    found: Sequence[NDArray[np.uint8]], wanted: Sequence[NDArray[np.uint8]]
) -> PictureFigures:
    """Pictures (H, W, 3) of one size, and what they should be → figures over all of them."""
    differences = [
        ours.astype(np.float64) - theirs.astype(np.float64)
        for ours, theirs in zip(found, wanted, strict=True)
    ]
    ratios = [psnr(ours, theirs) for ours, theirs in zip(found, wanted, strict=True)]
    mean = math.fsum(float(np.abs(each).mean()) for each in differences) / len(differences)
    return PictureFigures(_finite(statistics.median(ratios)), _finite(min(ratios)), mean)


def _finite(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None
