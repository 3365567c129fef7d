import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pixart_sigma.errors import InvalidInput
from pixart_sigma.reproduction.verdict import Noise, Spread, Verdict, judge, noise_of, spread, students_t

CELLS = st.integers(2, 4).flatmap(
    lambda seeds: st.lists(
        st.lists(st.floats(-1e3, 1e3), min_size=seeds, max_size=seeds), min_size=2, max_size=5
    )
)


def of_two(better: list[float], worse: list[float], lower_is_better: bool = True) -> Verdict:
    return judge(better, worse, [better, worse], lower_is_better)


def test_a_spread_is_that_of_a_sample() -> None:
    assert spread([1.0, 3.0]) == Spread(2.0, math.sqrt(2), 2)


@pytest.mark.parametrize("values", [[], [1.0]])
def test_one_seed_has_no_spread(values: list[float]) -> None:
    with pytest.raises(InvalidInput, match=f"at least 2 seeds, not {len(values)}; run more"):
        spread(values)


def test_what_a_seed_adds_to_all_cells_is_no_noise() -> None:
    assert noise_of([[1.0, 5.0], [2.0, 6.0], [7.0, 11.0]]) == Noise(pytest.approx(0, abs=1e-12), 2)


def test_noise_is_what_cells_and_seeds_leave() -> None:
    # Cells 2 and 4 on average, seeds 2 and 4: every value is 1 off.
    found = noise_of([[0.0, 4.0], [4.0, 4.0]])
    assert found == Noise(pytest.approx(2.0), 1)


@pytest.mark.parametrize("freedom", [1, 2, 5, 10, 11, 30, 200])
def test_students_t_is_scipys(freedom: int) -> None:
    assert students_t(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), abs=1e-3)


def test_the_bound_is_students_t_times_the_standard_error() -> None:
    cells = [[1.0, 3.0], [5.0, 8.0], [2.0, 2.0]]
    found = judge(cells[0], cells[1], cells, lower_is_better=True)
    assert found.difference == 4.5
    assert found.noise == pytest.approx(stats.t.ppf(0.975, 2) * noise_of(cells).deviation, rel=1e-4)


@pytest.mark.parametrize(
    ("better", "worse", "outcome"),
    [
        ([10.0, 10.1], [20.0, 20.2], "holds"),
        ([20.0, 20.1], [10.0, 10.2], "does not hold"),
        ([10.0, 14.0], [13.0, 15.0], "lies inside the noise"),
        ([5.0, 5.0], [5.0, 5.0], "lies inside the noise"),
    ],
)
def test_three_outcomes(better: list[float], worse: list[float], outcome: str) -> None:
    assert of_two(better, worse).outcome == outcome


def test_for_scores_more_is_better() -> None:
    assert of_two([2.0, 2.1], [1.0, 1.1], lower_is_better=False).outcome == "holds"
    assert of_two([2.0, 2.1], [1.0, 1.1], lower_is_better=True).outcome == "does not hold"


@given(CELLS)
def test_turning_the_claim_round_turns_the_verdict_round(cells: list[list[float]]) -> None:
    turned = {
        "holds": "does not hold",
        "does not hold": "holds",
        "lies inside the noise": "lies inside the noise",
    }
    first, second = cells[:2]
    one, other = judge(first, second, cells, True), judge(second, first, cells, True)
    assert other.outcome == turned[one.outcome]
    assert judge(first, second, cells, False).outcome == other.outcome


def test_more_seeds_and_more_cells_find_smaller_differences() -> None:
    better, worse, third = [0.0, 1.0], [1.0, 2.4], [3.0, 4.1]
    assert of_two(better, worse).outcome == "lies inside the noise"
    assert of_two(better * 4, worse * 4).outcome == "holds"
    assert judge(better, worse, [better, worse, third], True).outcome == "holds"
