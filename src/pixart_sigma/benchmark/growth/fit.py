"""Time over tokens as a constant, a linear and a quadratic part, none of them negative. Knows nothing of models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

FEWEST_POINTS = 3


@dataclass(frozen=True)
class Fit:
    """Seconds: a + b N + c N²."""

    constant: float
    linear: float
    quadratic: float

    def seconds(self, num_tokens: float) -> float:
        return self.constant + self.linear * num_tokens + self.quadratic * num_tokens**2

    def __str__(self) -> str:
        return f"{self.constant:.2g} s + {self.linear:.2g} s x N + {self.quadratic:.2g} s x N²"


def fit_growth(num_tokens: Sequence[int], seconds: Sequence[float]) -> Fit | None:
    """Least squares of the relative errors, since times span orders of magnitude; None for fewer than three points.

    Raises ValueError for lists of different lengths.
    """
    if len(set(num_tokens)) < FEWEST_POINTS:
        return None
    points = list(zip(num_tokens, seconds, strict=True))
    # In units of the largest, so that no column is a billion times another.
    largest = max(num_tokens)
    parts = np.array([[1.0, count / largest, (count / largest) ** 2] for count, _ in points])
    times = np.array([time for _, time in points])
    solved = non_negative_least_squares(parts / times[:, None], np.ones(len(points)))
    return Fit(float(solved[0]), float(solved[1] / largest), float(solved[2] / largest**2))


def non_negative_least_squares(
    columns: NDArray[np.float64], wanted: NDArray[np.float64]
) -> NDArray[np.float64]:
    """columns (n, k), wanted (n,) → the factors (k,), none of them negative, whose sum of columns is nearest to it.

    The nearest is that of some of the columns without the others, so every choice of them is tried: k is small.
    """
    count = columns.shape[1]
    best, least = np.zeros(count), float(wanted @ wanted)
    for number in range(1, count + 1):
        for chosen in combinations(range(count), number):
            some = columns[:, chosen]
            factors = np.linalg.lstsq(some, wanted, rcond=None)[0]
            error = float(np.sum((some @ factors - wanted) ** 2))
            if factors.min() >= 0 and error < least:
                least, best = error, np.zeros(count)
                best[list(chosen)] = factors
    return best
