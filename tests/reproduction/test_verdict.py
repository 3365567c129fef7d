import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixart_sigma.errors import InvalidInput
from pixart_sigma.reproduction.verdict import Spread, judge, pooled_deviation, spread

VALUES = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=5)


def test_a_spread_is_that_of_a_sample() -> None:
    assert spread([1.0, 3.0]) == Spread(2.0, math.sqrt(2), 2)


@pytest.mark.parametrize("values", [[], [1.0]])
def test_one_seed_has_no_spread(values: list[float]) -> None:
    with pytest.raises(InvalidInput, match=f"at least 2 seeds, not {len(values)}; run more"):
        spread(values)


def test_pooling_weighs_by_degrees_of_freedom() -> None:
    # (1·4 + 3·1) / 4
    assert pooled_deviation(Spread(0, 2.0, 2), Spread(9, 1.0, 4)) == pytest.approx(math.sqrt(7 / 4))


def test_the_bound_is_twice_the_standard_error() -> None:
    # Each deviates by sqrt(2), so the difference of two means of two has the standard error sqrt(2).
    found = judge([1.0, 3.0], [5.0, 7.0], lower_is_better=True)
    assert found.difference == 4
    assert found.noise == pytest.approx(2 * math.sqrt(2))
    assert found.outcome == "holds"


@pytest.mark.parametrize(
    ("better", "worse", "outcome"),
    [
        ([10.0, 10.1], [20.0, 20.1], "holds"),
        ([20.0, 20.1], [10.0, 10.1], "does not hold"),
        ([10.0, 14.0], [13.0, 17.0], "lies inside the noise"),
        ([5.0, 5.0], [5.0, 5.0], "lies inside the noise"),
        ([5.0, 5.0], [5.1, 5.1], "holds"),
    ],
)
def test_three_outcomes(better: list[float], worse: list[float], outcome: str) -> None:
    assert judge(better, worse, lower_is_better=True).outcome == outcome


def test_for_scores_more_is_better() -> None:
    assert judge([2.0, 2.1], [1.0, 1.1], lower_is_better=False).outcome == "holds"
    assert judge([2.0, 2.1], [1.0, 1.1], lower_is_better=True).outcome == "does not hold"


@given(VALUES, VALUES)
def test_turning_the_claim_round_turns_the_verdict_round(first: list[float], second: list[float]) -> None:
    turned = {
        "holds": "does not hold",
        "does not hold": "holds",
        "lies inside the noise": "lies inside the noise",
    }
    one, other = judge(first, second, lower_is_better=True), judge(second, first, lower_is_better=True)
    assert other.outcome == turned[one.outcome]
    assert judge(first, second, lower_is_better=False).outcome == other.outcome


def test_more_seeds_find_smaller_differences() -> None:
    better, worse = [0.0, 1.0], [1.2, 2.2]
    assert judge(better, worse, lower_is_better=True).outcome == "lies inside the noise"
    assert judge(better * 4, worse * 4, lower_is_better=True).outcome == "holds"
