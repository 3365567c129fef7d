import pytest

from pixart_sigma.benchmark.ratio import ratio_of_medians
from pixart_sigma.errors import InvalidInput


def test_the_ratio_is_that_of_the_medians() -> None:
    ratio = ratio_of_medians([2.0, 3.0, 100.0], [1.0, 2.0, 1.0])
    assert ratio.estimate == 3.0
    assert ratio.low <= 3.0 <= ratio.high


def test_what_slows_both_sides_of_a_round_leaves_the_interval_narrow() -> None:
    ours = [1.0, 5.0, 2.0, 9.0, 3.0, 1.5, 4.0]
    theirs = [1.5 * seconds for seconds in ours]
    together = ratio_of_medians(theirs, ours)
    assert (together.low, together.estimate, together.high) == pytest.approx((1.5, 1.5, 1.5))
    apart = ratio_of_medians(theirs[::-1], ours)
    assert apart.estimate == pytest.approx(1.5)
    assert apart.high - apart.low > 1


def test_rounds_must_be_whole() -> None:
    with pytest.raises(ValueError, match="zip"):
        ratio_of_medians([1.0, 2.0], [1.0])
    with pytest.raises(InvalidInput, match="no samples"):
        ratio_of_medians([], [])
