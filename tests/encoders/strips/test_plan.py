import re

import pytest

from pixart_sigma.encoders.strips.plan import MIB, Circumstances, Step, least_bytes, plan_strips
from pixart_sigma.errors import InvalidInput

# A decoder of two layers and a residual block between them, at 64 × 64.
STEPS = (
    Step("decoder.in", "convolve", 4, 64, 64, 32, 64, 64),
    Step("decoder.conv1", "convolve", 32, 64, 64, 32, 64, 64, keeps_input=True),
    Step("decoder.conv2", "convolve", 32, 64, 64, 32, 64, 64, added_channels=32),
    Step("decoder.up", "upsample", 32, 64, 64, 32, 128, 128),
    Step("decoder.out", "convolve", 32, 128, 128, 3, 128, 128, is_last=True),
)
WITH_FILES = Circumstances(value_bytes=4, may_spill=True)
LOW, HIGH = 64 * 64 * 32 * 4, 128 * 128 * 32 * 4


def test_everything_stays_in_memory_where_there_is_enough() -> None:
    plan = plan_strips(STEPS, 2**30, WITH_FILES)
    assert [step.rows for step in plan.steps] == [64, 64, 64, 128, 128]
    assert not any(step.spills for step in plan.steps)
    assert plan.spilled_bytes == 0
    # The upsampling step: both planes, the window, what is upsampled from it, and the strip before it is written.
    assert plan.peak_bytes == plan.steps[3].num_bytes
    assert plan.peak_bytes >= LOW + 2 * HIGH


def test_planes_go_to_files_and_strips_get_lower_as_the_limit_falls() -> None:
    heights, spilled = [], []
    for limit in (12 * MIB, 4 * MIB, MIB, MIB // 2):
        plan = plan_strips(STEPS, limit, WITH_FILES)
        assert plan.peak_bytes <= limit
        heights.append(sum(step.rows for step in plan.steps))
        spilled.append(plan.spilled_bytes)
    assert heights == sorted(heights, reverse=True)
    assert spilled == sorted(spilled)
    assert spilled[0] == 0
    assert spilled[-1] == LOW + HIGH  # the upsampling step: one plane is read, the other written


def test_half_the_bytes_of_a_value_need_about_half_the_memory() -> None:
    full, half = (plan_strips(STEPS, 2**30, Circumstances(size, False)).peak_bytes for size in (4, 2))
    assert half / full == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("may_spill", [False, True])
def test_the_least_that_an_error_names_is_enough(may_spill: bool) -> None:
    with pytest.raises(InvalidInput, match=r"0 MiB are too little for the decoder of 128x128") as error:
        plan_strips(STEPS, 0, Circumstances(4, may_spill))
    named = [int(number) * MIB for number in re.findall(r"(\d+) MiB", str(error.value))][1:]
    assert len(named) == (1 if may_spill else 2)
    plan_strips(STEPS, named[0], Circumstances(4, may_spill))
    plan_strips(STEPS, named[-1], WITH_FILES)


def test_what_the_caller_keeps_counts() -> None:
    without, with_result = (
        plan_strips(STEPS, 2**30, Circumstances(4, False, result_bytes=size)).steps[-1].num_bytes
        for size in (0, 1000)
    )
    assert with_result == without + 1000


@pytest.mark.parametrize("may_spill", [False, True])
def test_the_least_is_the_least(may_spill: bool) -> None:
    given = Circumstances(4, may_spill, result_bytes=1000)
    least = least_bytes(STEPS, given)
    assert plan_strips(STEPS, least, given).peak_bytes <= least
    with pytest.raises(InvalidInput):
        plan_strips(STEPS, least - 1, given)


@pytest.mark.parametrize("kind", ["convolve", "upsample", "downsample"])
@pytest.mark.parametrize("least", [1, 2, 3, 8])
def test_no_strip_reads_more_rows_than_counted(kind: str, least: int) -> None:
    step = Step("decoder.x", kind, 1, 99, 1, 1, 99, 1)  # type: ignore[arg-type]
    rows = least * step.least_rows
    read = [step.rows_read(first, first + rows) for first in range(0, 40, step.least_rows)]
    assert max(last - first for first, last in read) == step.most_rows_read(rows)


def test_a_3840x2160_picture_of_the_sdxl_shape_fits_into_4_gib_with_files() -> None:
    step = Step("decoder.up", "upsample", 256, 1080, 1920, 256, 2160, 3840)
    last = Step("decoder.out", "convolve", 256, 2160, 3840, 3, 2160, 3840, is_last=True)
    plan = plan_strips((step, last), 4 * 2**30, WITH_FILES)
    assert plan.peak_bytes <= 4 * 2**30
    assert plan.spilled_bytes == 2160 * 3840 * 256 * 4
