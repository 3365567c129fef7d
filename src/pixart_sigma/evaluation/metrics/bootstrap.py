"""How far a figure would move had other pictures been drawn: percentile intervals of the bootstrap.

Efron and Tibshirani, "An Introduction to the Bootstrap", chapter 13. Knows nothing of what is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeVar

import numpy as np

from pixart_sigma.errors import InvalidInput

RESAMPLES = 1000
LEVEL = 0.95

Sample = TypeVar("Sample")


@dataclass(frozen=True)
class Interval:
    """What was measured, and the bounds between which `LEVEL` of the resampled figures lie."""

    estimate: float
    low: float
    high: float


def bootstrap_interval(
    samples: Sequence[Sample], statistic: Callable[[Sequence[Sample]], float], seed: int = 0
) -> Interval:
    """Samples, one a picture, and a figure of any number of them → the figure with its interval.

    The same samples and seed give the same interval. Raises InvalidInput for no samples.
    """
    if not samples:
        raise InvalidInput("an interval of no samples is not defined; give at least one")
    rows = np.random.default_rng(seed).integers(len(samples), size=(RESAMPLES, len(samples)))
    figures = [statistic([samples[index] for index in row]) for row in rows.tolist()]
    low, high = np.quantile(figures, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(statistic(samples), float(low), float(high))


def mean_interval(samples: Sequence[float], seed: int = 0) -> Interval:
    """The mean with its interval; of zeros and ones, a share."""
    return bootstrap_interval(samples, fmean, seed)
