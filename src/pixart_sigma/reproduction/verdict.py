"""Values of a metric, one a seed → mean and spread, and whether a claimed ordering holds. Pure functions.

The seeds are paired: a seed's cells share their base, the order of the pictures and all noise. So what a seed adds to
all cells alike is taken out before the noise is told, and the noise is that of all comparable cells together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev
from typing import Literal

from pixart_sigma.errors import InvalidInput

Outcome = Literal["holds", "does not hold", "lies inside the noise"]
_CONFIDENCE = 0.95
_STUDENT = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)
"""Student's t for 1 to 10 degrees of freedom: of nothing but noise, this share lies within as many deviations."""


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (of a sample: n - 1) of `num` seeds' values."""

    mean: float
    deviation: float
    num: int


@dataclass(frozen=True)
class Noise:
    """The standard deviation of a single value, and the degrees of freedom by which it is known."""

    deviation: float
    freedom: int


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


def noise_of(cells: Sequence[Sequence[float]]) -> Noise:
    """Cells' values by seed, all comparable → what is left of them without each cell's mean and each seed's.

    Raises InvalidInput for fewer than two seeds.
    """
    means = [spread(cell).mean for cell in cells]
    num_seeds = len(cells[0])
    whole = fmean(means)
    shifts = [fmean(cell[seed] for cell in cells) - whole for seed in range(num_seeds)]
    squares = sum(
        (value - mean - shift) ** 2
        for cell, mean in zip(cells, means, strict=True)
        for value, shift in zip(cell, shifts, strict=True)
    )
    freedom = (len(cells) - 1) * (num_seeds - 1)
    return Noise(math.sqrt(squares / freedom), freedom)


def students_t(freedom: int) -> float:
    """The bound within which 95 % of Student's t lie; beyond 10 degrees of freedom to a thousandth."""
    if freedom <= len(_STUDENT):
        return _STUDENT[freedom - 1]
    normal = NormalDist().inv_cdf((1 + _CONFIDENCE) / 2)
    first = (normal**3 + normal) / 4
    second = (5 * normal**5 + 16 * normal**3 + 3 * normal) / 96
    third = (3 * normal**7 + 19 * normal**5 + 17 * normal**3 - 15 * normal) / 384
    return normal + first / freedom + second / freedom**2 + third / freedom**3


def judge(
    better: Sequence[float], worse: Sequence[float], peers: Sequence[Sequence[float]], lower_is_better: bool
) -> Verdict:
    """The values of two cells, by seed, and those of all comparable ones, the two included → whether the first is
    better.

    A difference of the means lies inside the noise up to Student's t times its standard error.
    """
    first, second = spread(better), spread(worse)
    difference = second.mean - first.mean if lower_is_better else first.mean - second.mean
    found = noise_of(peers)
    noise = students_t(found.freedom) * found.deviation * math.sqrt(2 / first.num)
    if abs(difference) <= noise:
        return Verdict("lies inside the noise", difference, noise)
    return Verdict("holds" if difference > 0 else "does not hold", difference, noise)
