"""What is computed at each step, without a tensor."""

import subprocess
import sys

import pytest

from pixart_sigma.diffusion.shortcuts.plan import ReuseSchedule, StepPlan, guided_steps, make_plan
from pixart_sigma.errors import InvalidInput

ALL, NONE = (True,) * 3, (False,) * 3


def numbers(steps: tuple[bool, ...]) -> list[int]:
    return [index for index, step in enumerate(steps) if step]


def test_it_is_there_without_torch() -> None:
    code = "import sys, pixart_sigma.diffusion.shortcuts.plan; print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
    )


@pytest.mark.parametrize(
    ("num_steps", "interval", "frozen_after", "expected"),
    [
        (10, (0.0, 1.0), None, range(10)),
        (10, (0.2, 0.8), None, range(2, 8)),
        (20, (0.29, 0.57), None, range(6, 11)),  # the middle of step 5 is at 0.275, of step 11 at 0.575
        (10, (0.2, 0.8), 4, range(2, 4)),
        (4, (0.5, 0.51), None, range(0)),
        (1, (0.0, 0.6), None, range(1)),
    ],
)
def test_guided_are_the_steps_whose_middle_is_in_the_interval(num_steps, interval, frozen_after, expected):
    assert numbers(guided_steps(num_steps, interval, frozen_after)) == list(expected)


@pytest.mark.parametrize("count", [1, 3, 7, 20, 50])
def test_intervals_that_meet_share_the_steps_out(count: int) -> None:
    for cut in (0.1, 0.25, 0.3, 0.5, 0.7):
        before, after = (numbers(guided_steps(count, interval)) for interval in ((0.0, cut), (cut, 1.0)))
        assert before + after == list(range(count))


def test_every_third_step_is_computed() -> None:
    schedule = ReuseSchedule.every(3, 7, 2)
    assert schedule.computed == tuple((ALL,) * 2 if step in (0, 3, 6) else (NONE,) * 2 for step in range(7))


def test_the_digest_is_of_what_is_computed() -> None:
    schedule = ReuseSchedule.every(2, 4, 3)
    assert ReuseSchedule(schedule.computed, "another").digest == schedule.digest
    others = [ReuseSchedule.every(*sizes).digest for sizes in ((3, 4, 3), (2, 5, 3), (2, 4, 2))]
    assert len({schedule.digest, *others}) == 4


def test_without_reuse_there_is_no_table() -> None:
    assert make_plan(3, True) == StepPlan((True,) * 3)
    assert make_plan(3, False, (0.5, 1.0)) == StepPlan((False,) * 3)
    assert make_plan(3, True, frozen_after=3) == StepPlan((True,) * 3)  # nothing comes after


def test_where_guidance_begins_everything_is_computed() -> None:
    plan = make_plan(8, True, (0.25, 1.0), reuse=ReuseSchedule.every(4, 8, 2), num_blocks=2)
    computed = [all(plan.computes(step, block, 0) for block in range(2)) for step in range(8)]
    assert numbers(tuple(computed)) == [0, 2, 4]


def test_from_the_freeze_on_cross_attention_is_not_computed() -> None:
    plan = make_plan(6, True, frozen_after=4, reuse=ReuseSchedule.every(2, 6, 1), num_blocks=1)
    assert plan.guided == (True,) * 4 + (False,) * 2
    by_sublayer = [
        numbers(tuple(plan.computes(step, 0, sublayer) for step in range(6))) for sublayer in range(3)
    ]
    assert by_sublayer == [[0, 2, 4], [0, 2, 3], [0, 2, 4]]


def test_kept_is_what_the_next_step_uses() -> None:
    plan = make_plan(4, True, reuse=ReuseSchedule.every(2, 4, 3), num_blocks=3)
    assert [plan.keeps(step, 0, 0) for step in range(4)] == [True, False, True, False]
    assert plan.most_kept == 3 * 3 * 2
    assert make_plan(4, False, reuse=ReuseSchedule.every(2, 4, 3), num_blocks=3).most_kept == 3 * 3
    assert make_plan(4, True, reuse=ReuseSchedule.every(1, 4, 3), num_blocks=3).most_kept == 0
    # Both branches' cross-attention at the step before they are averaged.
    assert make_plan(4, True, frozen_after=2, num_blocks=3).most_kept == 3 * 2
    assert StepPlan((True,) * 4).most_kept == 0


def test_what_changes_hands_within_a_step_is_counted() -> None:
    """The last block's is let go only after the first block's was kept."""
    rows = (((ALL, ALL)), (ALL, NONE), (NONE, ALL), (ALL, ALL))
    assert make_plan(4, False, reuse=ReuseSchedule(rows), num_blocks=2).most_kept == 6


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ((), "reuse schedule mine is empty"),
        (((),), "reuse schedule mine is empty"),
        (((ALL, ALL), (ALL,)), "reuse schedule mine differs in shape at step 1"),
        (((ALL,), ((True, False),)), "reuse schedule mine differs in shape at step 1"),
        (((ALL, (True, False, True)),), "reuse schedule mine leaves something out at its first step"),
    ],
)
def test_what_is_no_schedule_is_refused(rows, message) -> None:
    with pytest.raises(InvalidInput) as raised:
        ReuseSchedule(rows, "mine")
    assert str(raised.value).startswith(message)


def test_a_schedule_for_another_model_is_refused() -> None:
    with pytest.raises(
        InvalidInput, match="is for 4 steps and 3 blocks; this is a sampling of 4 steps with a model of 2"
    ):
        make_plan(4, True, reuse=ReuseSchedule.every(2, 4, 3), num_blocks=2)
