import numpy as np
import pytest

from pixart_sigma.training.watching.series import Series, collect_series, smooth, thin


def test_records_become_one_series_a_figure() -> None:
    series = collect_series(
        [
            {"step": 10, "seconds": 1.0, "loss": 2.0, "gradient_norm": None},
            {"step": 20, "seconds": 2.0, "loss": 1.0, "gradient_norm": 0.5, "note": "x"},
            {"step": 20, "seconds": 2.5, "validation_loss": 3},
            {"step": 15, "seconds": 2.6, "loss": 1.5},
            {"step": 20, "seconds": 2.7, "loss": 0.9},
        ]
    )
    assert list(series) == ["loss", "gradient_norm", "validation_loss"]
    assert series["loss"].steps.tolist() == [10, 15, 20]
    assert series["loss"].values.tolist() == [2.0, 1.5, 0.9]
    assert series["gradient_norm"].steps.tolist() == [20]


def test_smoothing_keeps_what_is_straight_and_does_not_lag() -> None:
    steps = np.arange(100, dtype=np.float64)
    line = smooth(Series(steps, 5 - 0.03 * steps), 16)
    np.testing.assert_allclose(line.values, 5 - 0.03 * steps, rtol=1e-9)


def test_smoothing_halves_noise_and_spreads_a_spike_without_a_plateau() -> None:
    generator = np.random.default_rng(0)
    noise = Series(np.arange(400.0), generator.normal(size=400))
    assert smooth(noise, 20).values[20:-20].std() < 0.4 * noise.values.std()
    spike = np.zeros(101)
    spike[50] = 1.0
    spread = smooth(Series(np.arange(101.0), spike), 20).values
    assert spread.sum() == pytest.approx(1)
    assert spread[50] > spread[52] > spread[55] > spread[61] == pytest.approx(0, abs=1e-12)


def test_thinning_takes_means_and_leaves_short_series_alone() -> None:
    series = Series(np.arange(10.0), np.arange(10.0) ** 2)
    assert thin(series, 10) is series
    thinned = thin(series, 5)
    assert thinned.steps.tolist() == [0.5, 2.5, 4.5, 6.5, 8.5]
    assert thinned.values.tolist() == [0.5, 6.5, 20.5, 42.5, 72.5]
