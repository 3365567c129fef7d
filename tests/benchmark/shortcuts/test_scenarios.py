from pathlib import Path

import pytest

from pixart_sigma.benchmark.shortcuts.scenarios import EXACT, choose, scenarios
from pixart_sigma.cli.parsing import parse_compression
from pixart_sigma.errors import InvalidInput
from pixart_sigma.pipeline.shortcuts import parse_shortcuts


def test_all_shortcuts_are_measured_in_twenty_steps() -> None:
    assert [scenario.options for scenario in scenarios(20)] == [
        "--kv-compression 1x2",
        "--kv-compression 2x2",
        "--kv-compression 3x3",
        "--guidance-interval 0.1:0.8",
        "--guidance-interval 0:0.6",
        "--freeze-captions-after 10",
        "--freeze-captions-after 5",
        "--reuse-blocks 2",
        "--reuse-blocks 3",
        "--int8",
        "--guidance-interval 0.1:0.8 --reuse-blocks 2",
    ]
    assert EXACT.options == ""
    assert EXACT.name not in {scenario.name for scenario in scenarios(20)}


def test_the_options_are_those_of_generate() -> None:
    for scenario in scenarios(20):
        words = scenario.options.split()
        given = {name: value for name, value in zip(words, [*words[1:], ""], strict=True) if name[:2] == "--"}
        asked = parse_shortcuts(
            given.get("--guidance-interval"),
            int(given["--freeze-captions-after"]) if "--freeze-captions-after" in given else None,
            given.get("--reuse-blocks"),
        )
        assert asked == scenario.shortcuts
        window = given.get("--kv-compression")
        compression = None if window is None else parse_compression(window, None, None)
        assert compression == scenario.kv_compression
        assert ("--int8" in given) == scenario.int8


def test_the_fewest_steps_leave_something_out_of_each() -> None:
    for scenario in scenarios(4):
        scenario.shortcuts.check(4, True)
        if scenario.shortcuts != EXACT.shortcuts:
            assert scenario.shortcuts.plan(4, 8, True) != EXACT.shortcuts.plan(4, 8, True)
    with pytest.raises(InvalidInput, match="3 steps are too few to leave something out of"):
        scenarios(3)


def test_those_named_or_all_that_fit() -> None:
    assert [scenario.name for scenario in choose(["int8", "reuse-2"], [], 20, True)] == ["int8", "reuse-2"]
    assert choose([], [], 20, True) == scenarios(20)
    unguided = [scenario.name for scenario in choose([], [], 20, False)]
    assert "reuse-2" in unguided
    assert not {"interval-middle", "interval-beginning", "together"} & set(unguided)
    with pytest.raises(
        InvalidInput, match=r"unknown scenario 'magic'; one of kv-1x2, .*together \(--scenario\)"
    ):
        choose(["magic"], [], 20, True)
    with pytest.raises(InvalidInput, match="needs guidance"):
        choose(["together"], [], 20, False)


def test_a_schedule_is_one_more_row(tmp_path: Path) -> None:
    file = tmp_path / "alternating.toml"
    rows = ", ".join(["'11'"] + ["'10'", "'01'"] * 2)
    file.write_text(f"self_attention = [{rows}]\ncross_attention = [{rows}]\nmlp = [{rows}]\n", "utf-8")
    *others, last = choose([], [file], 5, True)
    assert others == scenarios(5)
    assert last.name == "alternating"
    assert last.shortcuts == parse_shortcuts(None, None, str(file))
    assert last.options.startswith("--reuse-blocks alternating.toml (")
    assert choose(["int8"], [file], 5, False) == [others[-2], last]
    with pytest.raises(InvalidInput, match="is for 5 steps, not 20"):
        choose([], [file], 20, True)
    with pytest.raises(InvalidInput, match="cannot be read"):
        choose([], [tmp_path / "none.toml"], 5, True)
    taken = file.rename(tmp_path / "exact.toml")
    with pytest.raises(InvalidInput, match="has the name of another row, exact; rename the file"):
        choose([], [taken], 5, True)
