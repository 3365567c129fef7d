"""CMMD: the distance between two sets of pictures by the mean discrepancy of their embeddings, without a Gaussian.

Jayasumana et al., "Rethinking FID: Towards a Better Evaluation Metric for Image Generation", section 4 (there with
CLIP ViT-L/14 at 336 pixels).

Legend: N, M pictures, E embedding's width. Knows nothing of the model that embeds.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pixart_sigma.errors import InvalidInput

SIGMA = 10.0
SCALE = 1000.0
_ROWS = 1024  # of the kernel's matrix at a time, so that 30,000 pictures need no matrix of 7 GB


def cmmd(first: Tensor, second: Tensor) -> float:
    """Unit embeddings (N, E) and (M, E) → 1000 · the squared MMD with a Gaussian kernel of σ 10; 0 for equal sets.

    The estimate with the least variance, as the authors': every picture is compared with itself too. Computed in fp64,
    because kernels of unit vectors differ by 2 % at most. Raises InvalidInput for an empty set.
    """
    if not len(first) or not len(second):
        raise InvalidInput("CMMD of no pictures is not defined; give at least one on each side")
    first, second = first.double().cpu(), second.double().cpu()
    within = _mean_kernel(first, first) + _mean_kernel(second, second)
    return SCALE * (within - 2 * _mean_kernel(first, second))


def _mean_kernel(first: Tensor, second: Tensor) -> float:
    squares = second.square().sum(1)
    total = 0.0
    for rows in first.split(_ROWS):
        distances = rows.square().sum(1)[:, None] + squares - 2 * rows @ second.T
        total += float(torch.exp(distances / (-2 * SIGMA**2)).sum())
    return total / (len(first) * len(second))
