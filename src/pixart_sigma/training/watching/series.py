"""Metrics' records → one series a figure, and what is done to a series before it is drawn. Pure functions.

Legend: N points.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_NOT_FIGURES = {"step", "seconds"}


@dataclass(frozen=True)
class Series:
    """A figure over the run: steps (N,), rising, and values (N,), all finite; N ≥ 1."""

    steps: NDArray[np.float64]
    values: NDArray[np.float64]


def collect_series(records: Iterable[Mapping[str, Any]]) -> dict[str, Series]:
    """Name → series, in the order in which the figures first appear. Of two values at one step the later holds."""
    found: dict[str, dict[int, float]] = {}
    for record in records:
        for name, value in record.items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if name not in _NOT_FIGURES and is_number and np.isfinite(value):
                found.setdefault(name, {})[record["step"]] = float(value)
    return {name: _rising(points) for name, points in found.items()}


def smooth(series: Series, span: int) -> Series:
    """The mean of each point and up to span // 2 neighbours on either side, as many on both, near ones weighing more.

    Centred, it does not lag behind a loss that falls fast; a first or last point is its own mean. Weights fall
    linearly with the distance (two moving means of half the span in a row), so that a spike makes no plateau.
    """
    return Series(series.steps, _moving_mean(_moving_mean(series.values, span // 4), span // 4))


def thin(series: Series, most: int) -> Series:
    """At most `most` points: the means of equal groups of neighbours, so that a long run makes no long file."""
    num = len(series.steps)
    if num <= most:
        return series
    groups = np.array_split(np.arange(num), most)
    return Series(
        np.array([series.steps[group].mean() for group in groups]),
        np.array([series.values[group].mean() for group in groups]),
    )


def _rising(points: Mapping[int, float]) -> Series:
    steps = sorted(points)
    return Series(np.array(steps, np.float64), np.array([points[step] for step in steps], np.float64))


def _moving_mean(values: NDArray[np.float64], reach: int) -> NDArray[np.float64]:
    index = np.arange(len(values))
    reaches = np.minimum(np.minimum(index, len(values) - 1 - index), reach)
    sums = np.concatenate(([0.0], np.cumsum(values)))
    return (sums[index + reaches + 1] - sums[index - reaches]) / (2 * reaches + 1)
