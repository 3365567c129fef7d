from statistics import fmean

import numpy as np
import pytest

from pixart_sigma.errors import InvalidInput
from pixart_sigma.evaluation.metrics.bootstrap import bootstrap_interval, mean_interval


def test_the_interval_of_a_share_is_the_binomials() -> None:
    interval = mean_interval([1.0] * 80 + [0.0] * 20)
    assert interval.estimate == 0.8
    half = 1.96 * (0.8 * 0.2 / 100) ** 0.5
    assert interval.low == pytest.approx(0.8 - half, abs=0.015)
    assert interval.high == pytest.approx(0.8 + half, abs=0.015)


def test_it_holds_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    draws = rng.normal(3.0, 1.0, size=(60, 50))
    intervals = [mean_interval(draw.tolist(), seed) for seed, draw in enumerate(draws)]
    held = sum(interval.low <= 3.0 <= interval.high for interval in intervals)
    assert 52 <= held <= 60


def test_the_seed_decides() -> None:
    samples = list(map(float, range(30)))
    assert mean_interval(samples, seed=1) == mean_interval(samples, seed=1)
    assert mean_interval(samples, seed=1) != mean_interval(samples, seed=2)


def test_any_figure_of_any_samples_is_resampled() -> None:
    pairs = [(1, 2), (3, 4), (5, 10)] * 5
    interval = bootstrap_interval(
        pairs, lambda chosen: fmean(a for a, _ in chosen) / fmean(b for _, b in chosen)
    )
    assert interval.low < interval.estimate == 9 / 16 < interval.high


def test_equal_samples_leave_no_doubt() -> None:
    interval = mean_interval([2.0] * 4)
    assert (interval.low, interval.estimate, interval.high) == (2.0, 2.0, 2.0)


def test_no_samples_are_refused() -> None:
    with pytest.raises(InvalidInput, match="no samples"):
        mean_interval([])
