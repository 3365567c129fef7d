"""Fréchet distance between two sets of pictures, each taken for a Gaussian in the space of their features.

Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", equation 6.

Legend: N pictures, D features. Knows nothing of the extractor that made the features.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from pixart_sigma.errors import InvalidInput


@dataclass(frozen=True)
class Statistics:
    """mean (D) and covariance (D, D), the unbiased one, both fp64, of the features of `num` pictures."""

    mean: Tensor
    covariance: Tensor
    num: int


def gaussian_statistics(batches: Iterable[Tensor]) -> Statistics:
    """Batches (N, D) of features, their N free to differ → the statistics of all of them together.

    Raises InvalidInput for fewer than two pictures, batches of different D, and features that are not finite.
    """
    num, mean, scatter = 0, torch.zeros(0), torch.zeros(0)
    for batch in batches:
        features = batch.double().cpu()
        if not features.isfinite().all():
            raise InvalidInput(
                "features must be finite, and some are not; check the pictures and the extractor"
            )
        if not num:
            mean, scatter = _no_moments(features.shape[1])
        if features.shape[1] != len(mean):
            raise InvalidInput(
                f"a batch of {features.shape[1]} features follows one of {len(mean)}; extract all with one extractor"
            )
        # Chan's update keeps every sum about a mean, since sums of squares would cancel.
        batch_mean = features.mean(0)
        step = batch_mean - mean
        total = num + len(features)
        centred = features - batch_mean
        scatter = scatter + centred.T @ centred + step.outer(step) * (num * len(features) / total)
        mean = mean + step * (len(features) / total)
        num = total
    if num < 2:
        raise InvalidInput(f"a covariance needs at least 2 pictures, not {num}; give more")
    return Statistics(mean, scatter / (num - 1), num)


def frechet_distance(first: Statistics, second: Statistics) -> float:
    """|m₁ - m₂|² + tr(C₁ + C₂ - 2 (C₁ C₂)^½), at least 0.

    Biased upwards by few pictures: compare only what was measured on equally many. Raises InvalidInput for
    statistics of different D.
    """
    if len(first.mean) != len(second.mean):
        raise InvalidInput(
            f"statistics of {len(first.mean)} and of {len(second.mean)} features cannot be compared; "
            "make both with one extractor"
        )
    shift = (first.mean - second.mean).square().sum()
    spread = first.covariance.trace() + second.covariance.trace()
    # With C = A Aᵀ the trace of (C₁ C₂)^½ is the sum of the singular values of A₁ᵀ A₂. Unlike the square root of the
    # product, this is exact for singular covariances, which fewer pictures than features always give.
    shared = torch.linalg.svdvals(_factor(first.covariance).T @ _factor(second.covariance)).sum()
    return max(0.0, float(shift + spread - 2 * shared))


def _no_moments(num_features: int) -> tuple[Tensor, Tensor]:
    mean = torch.zeros(num_features, dtype=torch.float64)
    return mean, mean.outer(mean)


def _factor(covariance: Tensor) -> Tensor:
    """C (D, D) of rank R → A (D, R) with A Aᵀ = C to rounding."""
    values, vectors = torch.linalg.eigh(covariance)
    # The usual numerical rank; what is below is rounding, whose root would not be small.
    kept = values > len(values) * torch.finfo(values.dtype).eps * values[-1]
    return vectors[:, kept] * values[kept].sqrt()
