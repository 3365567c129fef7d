"""Values of a metric, one a seed → mean and spread, and whether a claimed ordering holds. Pure functions.

With two seeds a cell the pooled spread has two degrees of freedom: of cells that do not differ at all, about one
comparison in five is then taken for a difference. More seeds make it rarer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

from pixart_sigma.errors import InvalidInput

Outcome = Literal["holds", "does not hold", "lies inside the noise"]


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (of a sample: n - 1) of `num` seeds' values."""

    mean: float
    deviation: float
    num: int


@dataclass(frozen=True)
class Verdict:
    """By how much `better` is the better one (negative: the worse one), and the bound below which that is noise."""

    outcome: Outcome
    difference: float
    noise: float


def spread(values: Sequence[float]) -> Spread:
    """Raises InvalidInput for fewer than two values, of which no spread can be told."""
    if len(values) < 2:
        raise InvalidInput(f"a spread needs at least 2 seeds, not {len(values)}; run more (--seeds 2)")
    return Spread(fmean(values), stdev(values), len(values))


def pooled_deviation(first: Spread, second: Spread) -> float:
    """The standard deviation that two cells share, weighted by their degrees of freedom."""
    freedom = first.num + second.num - 2
    squares = (first.num - 1) * first.deviation**2 + (second.num - 1) * second.deviation**2
    return math.sqrt(squares / freedom)


def judge(better: Sequence[float], worse: Sequence[float], lower_is_better: bool) -> Verdict:
    """The values of two cells → whether the first is better.

    A difference of the means up to twice its standard error (by the pooled deviation) lies inside the noise.
    """
    first, second = spread(better), spread(worse)
    error = pooled_deviation(first, second) * math.sqrt(1 / first.num + 1 / second.num)
    difference = second.mean - first.mean if lower_is_better else first.mean - second.mean
    noise = 2 * error
    if abs(difference) <= noise:
        return Verdict("lies inside the noise", difference, noise)
    return Verdict("holds" if difference > 0 else "does not hold", difference, noise)
