"""Time over tokens as a constant, a linear and a quadratic part, none of them negative. Knows nothing of models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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
    from scipy.optimize import nnls  # type: ignore[import-untyped]

    points = list(zip(num_tokens, seconds, strict=True))
    # In units of the largest, so that no column is a billion times another.
    largest = max(num_tokens)
    parts = np.array([[1.0, count / largest, (count / largest) ** 2] for count, _ in points])
    times = np.array([time for _, time in points])
    solved, _ = nnls(parts / times[:, None], np.ones(len(points)))
    return Fit(float(solved[0]), float(solved[1] / largest), float(solved[2] / largest**2))
