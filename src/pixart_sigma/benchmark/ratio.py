"""How many times as fast one side is as the other, and how sure that is. Knows nothing of what was timed."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from pixart_sigma.evaluation.metrics.bootstrap import Interval, bootstrap_interval


def ratio_of_medians(theirs: Sequence[float], ours: Sequence[float]) -> Interval:
    """Seconds of both sides, by round → median theirs / median ours, with the interval of resampled rounds.

    Rounds are drawn as pairs, since what slows a busy machine slows both sides of a round. Raises InvalidInput for no
    rounds, ValueError for lists of different lengths.
    """
    return bootstrap_interval(list(zip(theirs, ours, strict=True)), _ratio)


def _ratio(pairs: Sequence[tuple[float, float]]) -> float:
    return median(theirs for theirs, _ in pairs) / median(ours for _, ours in pairs)
