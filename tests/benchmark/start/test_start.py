import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pixart_sigma.benchmark.outcome import Output
from pixart_sigma.benchmark.start import driver, measure
from pixart_sigma.benchmark.start import run as suites
from pixart_sigma.benchmark.start.measure import Side, sides, write_plain_pocket
from pixart_sigma.benchmark.start.scenarios import SCENARIOS, TINY
from pixart_sigma.benchmark.start.start_table import summarise
from pixart_sigma.errors import InvalidInput, PixArtSigmaError

CPU = torch.device("cpu")


def silent(line: str) -> None:
    """Nobody listens."""


def in_this_process(side: Side, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What a side's process prints."""
    monkeypatch.setattr(sys, "argv", ["driver", *side.arguments[2:]])
    assert driver.main() == 0
    return capsys.readouterr().out


def test_all_three_make_the_same_picture_and_tell_when(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_plain_pocket(tmp_path)
    command, library, theirs = sides(TINY[0], CPU, tmp_path)
    for side in (command, library, theirs):
        began = time.monotonic()
        stamps = json.loads(in_this_process(side, monkeypatch, capsys).splitlines()[-1])
        assert ("imported" in stamps) == (side is not command)
        times = [
            began,
            stamps.get("imported", began),
            stamps["first_step"],
            stamps["written"],
            time.monotonic(),
        ]
        assert times == sorted(times)
        assert stamps["first_step"] < stamps["written"]
    for side in (command, library, theirs):
        with Image.open(side.picture) as picture:
            assert picture.size == (64, 64)
        assert measure._levels(side.picture, theirs.picture) <= 1


def test_the_scenario_is_the_one_that_is_promised(tmp_path: Path) -> None:
    command = json.loads(sides(SCENARIOS[0], CPU, tmp_path)[0].arguments[-1])["arguments"]
    assert " ".join(command).startswith("generate --model pocket --size 256x256 --steps 20 ")


def test_a_process_is_timed_from_its_start_and_tells_how_it_ended(tmp_path: Path) -> None:
    slept = Side("sleeper", ["-c", "import time; time.sleep(0.2)"], tmp_path).run()
    assert slept.keys() == {"ended"}
    assert slept["ended"] >= 0.2
    with pytest.raises(PixArtSigmaError, match=r"the process of 'broken' ended: it broke"):
        Side("broken", ["-c", "raise SystemExit('it broke')"], tmp_path).run()


def test_a_command_that_fails_is_no_picture(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = json.dumps({"side": "command", "arguments": ["generate", "--steps", "0", "a house"]})
    monkeypatch.setattr(sys, "argv", ["driver", told])
    with pytest.raises(SystemExit, match="2"):
        driver.main()
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: steps 0 is outside")


def pretend(monkeypatch: pytest.MonkeyPatch, levels: dict[str, int]) -> list[str]:
    """Processes that only paint; → their names in the order in which they ran."""
    order: list[str] = []

    def run(side: Side) -> dict[str, float]:
        order.append(side.name)
        pixels = np.full((4, 4, 3), 100 + levels.get(side.name, 0), dtype=np.uint8)
        Image.fromarray(pixels).save(side.picture)
        stamps = {"first_step": 2.0} if side.name == measure.COMMAND else {"imported": 1.0, "first_step": 2.0}
        return stamps | {"ended": float(len(order))}

    monkeypatch.setattr(Side, "run", run)
    return order


def test_sides_run_in_turns_after_a_round_that_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = pretend(monkeypatch, {measure.COMMAND: 1})
    output = Output(tmp_path / "figures.json", tmp_path / "table.md")
    outcome = suites.run_start([], "cpu", 2, output, silent)
    three = [measure.COMMAND, measure.LIBRARY, measure.THEIRS]
    assert order == [*three, *three, *reversed(three)]
    (row,) = json.loads((tmp_path / "figures.json").read_text())["rows"]
    assert [run["ended"] for run in row["sides"]["diffusers"]["runs"]] == [6.0, 7.0]
    assert row["sides"][measure.COMMAND]["levels"] == 1
    assert outcome.text.count("| pocket-256 | 20 |") == 3
    assert (tmp_path / "table.md").read_text() == outcome.text + "\n"


def test_another_picture_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    order = pretend(monkeypatch, {measure.LIBRARY: 2})
    outcome = suites.run_start(["pocket-256"], "cpu", 2, Output(), silent)
    assert outcome.failures == (
        "pocket-256: the pictures of TextToImage and diffusers differ by 2 levels, allowed is 1",
    )
    assert len(order) == 3
    with pytest.raises(InvalidInput, match="unknown scenario 'huge'; one of pocket-256, tiny"):
        suites.run_start(["huge"], "cpu", 2, Output(), silent)


def test_the_table_has_medians_and_a_dash_where_nothing_was_told() -> None:
    def side(whole: list[float], levels: int, **stamps: float) -> dict[str, Any]:
        return {"runs": [stamps | {"ended": seconds} for seconds in whole], "levels": levels}

    row = {
        "scenario": "pocket-256",
        "steps": 20,
        "failed": None,
        "sides": {
            measure.COMMAND: side([4.0, 5.0, 9.0], 1, first_step=2.25),
            measure.LIBRARY: side([5.0, 5.0, 5.0], 0, imported=1.5, first_step=2.5),
            measure.THEIRS: side([10.0, 10.0, 10.0], 0, imported=6.0, first_step=8.0),
        },
    }
    command, library, theirs = summarise([row, row | {"failed": "no"}])[:3]
    assert (command["whole s"], command["fastest"], command["imports s"]) == (5.0, 4.0, None)
    assert command["first step s"] == 2.25
    assert command["speed"].startswith("2.00x (")
    assert (library["imports s"], library["first step s"]) == (1.5, 2.5)
    assert theirs["speed"] == "1.00x"
    assert summarise([row | {"failed": "no"}])[0]["side"] == "failed: no"


@pytest.mark.slow
def test_real_processes_start_from_nothing() -> None:
    outcome = suites.run_start(["tiny"], "cpu", 1, Output(), silent)
    assert outcome.failures == ()
