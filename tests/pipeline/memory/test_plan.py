"""Plans over needs of round numbers: 100 for the process, then each stage in each of its ways."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pixart_sigma.encoders.tiling import Tiling, TilingMethod
from pixart_sigma.errors import InvalidInput
from pixart_sigma.pipeline.memory.limit import parse_limit
from pixart_sigma.pipeline.memory.plan import Choices, MemoryPlan, Needs, PartBytes, make_plan
from pixart_sigma.pipeline.memory.table import plan_lines

LEAST = {False: 300, True: 30}


def decode_working(tiling: Tiling | None) -> int:
    if tiling is None:
        return 1000
    if tiling.method == "fast":
        return 60 if tiling.limit_bytes is None else min(60, tiling.limit_bytes)
    assert tiling.limit_bytes is not None
    if tiling.limit_bytes < LEAST[tiling.spill is not None]:
        raise InvalidInput("too small")
    return tiling.limit_bytes - 1


NEEDS = Needs(
    process=100,
    num_pictures=3,
    guided=True,
    text={"resident": PartBytes(5000), "streamed": PartBytes(200, 50), "nf4": PartBytes(1500)},
    text_working=10,
    transformer=PartBytes(0, 700),
    visiting=None,
    denoise_working=lambda pictures, together: 100 * pictures * (2 if together else 1),
    autoencoder=PartBytes(50),
    decode_working=decode_working,
    decode_beside=0,
    least_decode=lambda method, may_spill: 40 if method == "fast" else LEAST[may_spill],
    find_spill=lambda: Path("/somewhere"),
)


def ways(plan: MemoryPlan) -> tuple[object, ...]:
    spills = plan.tiling is not None and plan.tiling.spill is not None
    tiled = "whole" if plan.tiling is None else "files" if spills else "strips"
    return plan.staged, plan.text_hold, plan.pictures_at_once, plan.branches_together, tiled


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (6150, (False, "resident", 3, True, "whole")),  # 100 + 5000 + 50 + 1000
        (6149, (True, "resident", 3, True, "whole")),
        (5109, (True, "streamed", 3, True, "whole")),  # 100 + 5000 + 10 no more
        (1149, (True, "streamed", 3, True, "strips")),  # 100 + 50 + 1000 no more
        (699, (True, "streamed", 1, True, "strips")),  # 100 + 600 no more
        (449, (True, "streamed", 1, True, "files")),  # 100 + 50 + 300 no more
        (310, (True, "streamed", 1, True, "files")),
    ],
)
def test_the_fastest_that_fits(limit: int, expected: tuple[object, ...]) -> None:
    plan = make_plan(NEEDS, limit, Choices())
    assert ways(plan) == expected
    assert plan.peak_bytes <= limit


def test_the_branches_come_apart_last() -> None:
    light = replace(NEEDS, text={hold: PartBytes(0) for hold in ("resident", "streamed")})
    assert ways(make_plan(light, 299, Choices())) == (True, "resident", 1, False, "files")
    assert make_plan(replace(light, guided=False), 300, Choices()).branches_together


def test_freed_memory_is_kept_only_where_twice_as_much_would_fit() -> None:
    resident = make_plan(NEEDS, 10**6, Choices())
    assert resident.may_keep
    assert not make_plan(NEEDS, resident.peak_bytes, Choices()).may_keep


def test_several_processes_go_stage_by_stage_whatever_the_limit() -> None:
    plan = make_plan(NEEDS, 10**6, Choices(staged=True))
    assert ways(plan) == (True, "resident", 3, True, "whole")


def test_on_a_gpu_blocks_visit_it_before_nothing_fits() -> None:
    gpu = replace(
        NEEDS,
        text={hold: PartBytes(0) for hold in ("resident", "streamed")},
        transformer=PartBytes(700),
        visiting=PartBytes(50),
    )
    resident = make_plan(gpu, 900, Choices())
    assert (resident.blocks_visit, resident.pictures_at_once, resident.branches_together) == (False, 1, False)
    visiting = make_plan(gpu, 899, Choices())
    assert (visiting.blocks_visit, visiting.pictures_at_once, visiting.branches_together) == (True, 3, True)
    assert visiting.stages[1].num_bytes == 100 + 50 + 600
    assert visiting.stages[1].how == "3 pictures at once; blocks visit the device"


def test_more_memory_is_never_used_for_less() -> None:
    """Each stage's way is the same or a faster one at a higher limit, and its peak is within it."""
    order = {"files": 0, "strips": 1, "whole": 2}
    before: tuple[object, ...] | None = None
    for limit in range(310, 6200, 7):
        plan = make_plan(NEEDS, limit, Choices())
        assert all(stage.num_bytes <= limit for stage in plan.stages)
        staged, hold, pictures, together, tiled = ways(plan)
        rank = (not staged, hold == "resident", pictures, together, order[str(tiled)])
        if before is not None:
            assert all(new >= old for new, old in zip(rank, before, strict=True))  # type: ignore[operator]
        before = rank


def test_a_limit_that_cannot_be_met_says_the_least_that_can() -> None:
    remedies = {"text": ["--text-encoder nf4"], "denoise": ["--dtype bfloat16"], "decode": ["--size small"]}
    large = replace(
        NEEDS,
        process=2**30,
        text={hold: PartBytes(2**20 * size) for hold, size in {"resident": 900, "streamed": 100}.items()},
    )
    with pytest.raises(InvalidInput) as raised:
        make_plan(large, 2**30, Choices(remedies=remedies))  # type: ignore[arg-type]
    message = str(raised.value)
    assert message.startswith(
        "memory limit 1.00 GiB is too little, the least is 1.10 GiB, for stage text: give "
    )
    assert "--text-encoder nf4" in message
    assert "\n" not in message
    least = message.split("--memory-limit ")[1].split(";")[0]
    limit = parse_limit(least)
    assert isinstance(limit, int)
    assert make_plan(large, limit, Choices()).text_hold == "streamed"
    with pytest.raises(InvalidInput):
        make_plan(large, limit - 18 * 2**20, Choices())


def test_what_is_free_is_not_called_a_limit() -> None:
    remedies = {"decode": ["a smaller --size"]}
    with pytest.raises(InvalidInput) as raised:
        make_plan(NEEDS, 200, Choices(limited=False, remedies=remedies))  # type: ignore[arg-type]
    message = str(raised.value)
    assert message.startswith("1 MiB of memory are free, and stage ")
    assert "close other programs" in message
    assert "--memory-limit" not in message


@pytest.mark.parametrize(("least_fast", "named"), [(10, True), (50, False)])
def test_blended_tiles_are_named_where_they_would_take_less(least_fast: int, named: bool) -> None:
    needs = replace(
        NEEDS,
        text={hold: PartBytes(0) for hold in NEEDS.text},
        denoise_working=lambda *_: 0,
        least_decode=lambda method, may_spill: least_fast if method == "fast" else LEAST[may_spill],
    )
    with pytest.raises(InvalidInput) as raised:
        make_plan(needs, 170, Choices())
    assert ("--vae-tiling fast" in str(raised.value)) == named


def test_what_the_user_decided_is_kept() -> None:
    plan = make_plan(NEEDS, 2000, Choices(text_hold="nf4", tiling="fast"))
    assert (plan.text_hold, plan.tiling) == ("nf4", Tiling("fast"))
    light = replace(NEEDS, text={hold: PartBytes(0) for hold in NEEDS.text}, denoise_working=lambda *_: 0)
    assert make_plan(light, 195, Choices(tiling="fast")).tiling == Tiling("fast", 45)
    with pytest.raises(InvalidInput, match="too little"):
        make_plan(light, 189, Choices(tiling="fast"))  # 100 + 50 + 40
    with pytest.raises(InvalidInput, match="too little"):
        make_plan(NEEDS, 1609, Choices(text_hold="nf4"))  # 100 + 1500 + 10
    assert make_plan(NEEDS, 1610, Choices(text_hold="nf4")).staged
    assert not make_plan(NEEDS, 10**9, Choices(text_hold="streamed")).staged


def test_known_prompts_need_no_text_encoder() -> None:
    known = replace(NEEDS, text={hold: PartBytes(0) for hold in NEEDS.text}, text_known=True)
    plan = make_plan(known, 1150, Choices())  # 100 + 50 + 1000, where the encoder alone would take more
    assert not plan.staged
    assert plan.stages[0].how == "from the prompt cache"
    assert plan.stages[0].num_bytes == 100 + 50 + 10
    assert plan.text_hold == "streamed"
    assert "all but the text encoder" in "\n".join(plan_lines(plan, "cpu", "float32"))
    staged = plan_lines(make_plan(known, 700, Choices()), "cpu", "float32")
    assert staged[2].split() == ["text", "-", "from", "the", "prompt", "cache", "1", "MiB", "-"]


def test_blended_tiles_of_which_one_holds_the_picture_are_the_whole() -> None:
    light = replace(NEEDS, text={hold: PartBytes(0) for hold in NEEDS.text}, one_tile=True)
    plan = make_plan(light, 10**6, Choices(tiling="fast"))
    assert plan.tiling is None
    assert plan.stages[2].how == "whole"
    assert make_plan(light, 1000, Choices(tiling="fast")).tiling == Tiling("fast", 850)
    assert make_plan(replace(light, one_tile=False), 10**6, Choices(tiling="fast")).tiling == Tiling("fast")


def test_strips_leave_room_for_what_is_beside_them() -> None:
    plan = make_plan(replace(NEEDS, decode_beside=20), 600, Choices())
    assert plan.tiling == Tiling("exact", 600 - 100 - 50 - 20)
    assert plan.stages[2].num_bytes == 599


def test_without_a_folder_for_temporary_files_all_stays_in_memory() -> None:
    def nowhere() -> Path:
        raise InvalidInput("no folder")

    without = replace(NEEDS, find_spill=nowhere)
    assert ways(make_plan(without, 450, Choices()))[-1] == "strips"
    with pytest.raises(InvalidInput, match="the least is 1 MiB, for stage decode"):
        make_plan(without, 448, Choices())


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        (10**9, ["everything resident", "all parts", "3 pictures at once", "whole"]),
        (1149, ["stage by stage", "text encoder", "streamed from its files", "exact strips within"]),
        (310, ["one picture after the other", "temporary files in /somewhere"]),
    ],
)
def test_the_table_says_how(limit: int, words: list[str]) -> None:
    lines = plan_lines(make_plan(NEEDS, limit, Choices()), "cpu", "float32")
    text = "\n".join(lines)
    assert all(word in text for word in words)
    assert [line.split()[0] for line in lines] == [
        "memory",
        "stage",
        "text",
        "denoise",
        "decode",
        "predicted",
    ]


def test_needs_are_asked_for_only_what_is_planned() -> None:
    """Strips are planned only where the whole does not fit: planning them takes time."""

    def refuse(_: TilingMethod, __: bool) -> int:
        raise AssertionError("strips are planned")

    asked: Callable[[TilingMethod, bool], int] = refuse
    assert make_plan(replace(NEEDS, least_decode=asked), 1150, Choices()).tiling is None


def test_a_plan_says_that_blocks_are_in_8_bits() -> None:
    said, unsaid = (
        " ".join(plan_lines(make_plan(needs, 6150, Choices()), "cpu", "float32"))
        for needs in (replace(NEEDS, int8=True), NEEDS)
    )
    assert "blocks in 8 bits" in said
    assert "8 bits" not in unsaid
