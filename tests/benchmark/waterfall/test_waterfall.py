import contextlib
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from pixart_sigma.benchmark import machine
from pixart_sigma.benchmark.inference import ours, worker
from pixart_sigma.benchmark.inference.switches import (
    CAPTIONS_ONCE,
    CHANNELS_LAST,
    KEPT_MEMORY,
    ONEDNN,
    SWITCHES,
    TILES,
    UPSAMPLING,
)
from pixart_sigma.benchmark.outcome import Output
from pixart_sigma.benchmark.processes import Task, Worker
from pixart_sigma.benchmark.waterfall import measure
from pixart_sigma.benchmark.waterfall import run as suites
from pixart_sigma.benchmark.waterfall.measure import links
from pixart_sigma.benchmark.waterfall.waterfall_table import summarise
from pixart_sigma.errors import InvalidInput
from workers_here import starting_here

started_here = starting_here(worker)


@pytest.fixture(autouse=True)
def small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_CPU_SIDE", 64)


@pytest.fixture
def pairs(monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[str, list[str]]]]:
    """Names, and what is off, of the processes that ran together."""
    noted: list[list[tuple[str, list[str]]]] = []

    @contextlib.contextmanager
    def noting(tasks: Sequence[Task], folder: Path) -> Iterator[list[Worker]]:
        noted.append([(task.name, task.arguments["off"]) for task in tasks])
        with started_here(tasks, folder) as workers:
            yield workers

    monkeypatch.setattr(measure, "started", noting)
    return noted


def silent(line: str) -> None:
    """Nobody listens."""


def test_the_last_row_is_the_library_and_each_has_one_thing_more() -> None:
    for work, suite in (("picture", "pipeline"), ("step", "transformer")):
        assert measure.WORKS[suite] == work  # type: ignore[index]
        theirs, first, *others = links(work, "cpu", "float32")  # type: ignore[arg-type]
        assert theirs == ("diffusers", "diffusers", (KEPT_MEMORY,), False)
        assert first[0] == "everything that can be switched off"
        off = first[2]
        assert KEPT_MEMORY in off  # as in the row beside it
        for link in others:
            assert link == (f"+ {off[0]}", "ours", off[1:], False)
            off = link.off
        assert off == ()
        compiled = links(work, "cpu", "float32", compiled=True)  # type: ignore[arg-type]
        assert compiled == [theirs, first, *others, ("+ blocks compiled", "ours", (), True)]
    assert CHANNELS_LAST not in links("step", "cpu", "float32")[1][2]
    everything = {name for dtype in ("float32", "bfloat16") for name in links("picture", "cpu", dtype)[1][2]}
    assert everything == set(SWITCHES)


@pytest.mark.parametrize(
    ("device", "dtype", "there"),
    [
        ("cpu", "float32", {ONEDNN}),
        ("cpu", "bfloat16", {TILES}),
        ("cuda", "float32", set()),
        ("cuda", "bfloat16", set()),
    ],
)
def test_no_row_is_of_what_does_nothing_there(device: str, dtype: str, there: set[str]) -> None:
    assert {TILES, ONEDNN} & set(links("step", device, dtype)[1][2]) == there


def test_every_row_runs_beside_the_one_before(
    tmp_path: Path, pairs: list[list[tuple[str, list[str]]]]
) -> None:
    output = Output(tmp_path / "figures.json", tmp_path / "table.md")
    outcome = suites.run_waterfall("pipeline", ["tiny"], ["float32"], "cpu", 2, 2, 3, False, output, silent)
    assert outcome.failures == ()
    names = [link.name for link in links("picture", "cpu", "float32")]
    assert [[name for name, _ in pair] for pair in pairs] == [
        list(pair) for pair in itertools.pairwise(names)
    ]
    assert pairs[-1][-1] == (f"+ {UPSAMPLING}", [])
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["suite"] == "pipeline-waterfall"
    assert figures["options"] == {"rounds": 2, "steps": 2, "batch": 3}
    (row,) = figures["rows"]
    assert [link["name"] for link in row["links"]] == names
    for link in row["links"][1:]:
        assert len(link["seconds"]) == len(link["before"]) == 2
        assert max(link["gate"]["errors"].values()) <= link["gate"]["tolerance"] == 1e-4
    assert outcome.text.count("| tiny | float32 |") == len(names)
    assert (tmp_path / "table.md").read_text() == outcome.text + "\n"


def test_the_compiled_row_comes_last_beside_the_library(
    pairs: list[list[tuple[str, list[str]]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In processes that leave it as it is."""
    folders: list[tuple[str, str | None]] = []
    starting = measure.started

    @contextlib.contextmanager
    def eager(tasks: Sequence[Task], folder: Path) -> Iterator[list[Worker]]:
        folders.extend((task.name, task.arguments["compiled_in"]) for task in tasks)
        plain = [Task(each.name, each.module, each.arguments | {"compiled_in": None}) for each in tasks]
        with starting(plain, folder) as workers:
            yield workers

    monkeypatch.setattr(measure, "started", eager)
    monkeypatch.setattr(suites, "check_compiler", lambda: None)
    suites.run_waterfall("transformer", ["tiny"], ["float32"], "cpu", 1, None, 1, True, Output(), silent)
    *_, alone, last = pairs
    assert [name for name, _ in alone] == ["+ blocks compiled"]  # whose compiler keeps its work for the row
    assert [name for name, _ in last] == [f"+ {ONEDNN}", "+ blocks compiled"]
    compiled = {folder for name, folder in folders if name == "+ blocks compiled"}
    assert len(compiled) == 1
    assert None not in compiled
    assert {folder for name, folder in folders if name != "+ blocks compiled"} == {None}


def test_a_row_that_is_not_diffusers_ends_the_chain(
    pairs: list[list[tuple[str, list[str]]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    switch_off = ours.switch_off_in_transformer

    def faulty(model: Any, off: Any) -> None:
        switch_off(model, off)
        if CAPTIONS_ONCE not in off:
            with torch.no_grad():
                model.proj_out.weight.mul_(1.1)

    monkeypatch.setattr(ours, "switch_off_in_transformer", faulty)
    outcome = suites.run_waterfall(
        "transformer", ["tiny"], ["float32"], "cpu", 1, None, 1, False, Output(), silent
    )
    (failure,) = outcome.failures
    assert failure.startswith(f"tiny in float32: + {CAPTIONS_ONCE}: the two sides differ: prediction ")
    assert len(pairs) == 4  # everything off, memory, padding, and then this one
    assert f"| + {KEPT_MEMORY} |" in outcome.text
    assert outcome.text.splitlines()[-1].startswith("| tiny | float32 | - |")


def test_every_row_is_written_as_soon_as_it_is_there(
    tmp_path: Path, pairs: list[list[tuple[str, list[str]]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[dict[str, Any]] = []
    monkeypatch.setattr(Output, "write", lambda output, figures: written.append(figures))
    outcome = suites.run_waterfall(
        "transformer", ["tiny"], ["float32"], "cpu", 1, None, 1, False, Output(), silent
    )
    names = [link.name for link in links("step", "cpu", "float32")]
    for number, figures in enumerate(written, 2):
        (row,) = figures["rows"]
        assert [link["name"] for link in row["links"]] == names[:number]
        ended = (
            {"incomplete": f"tiny in float32 ends before {names[number]!r}"} if number < len(names) else {}
        )
        assert {name: value for name, value in figures.items() if name == "incomplete"} == ended
    assert len(written) == len(names) - 1
    assert "Not all of it" not in outcome.text


def test_what_cannot_be_is_refused_before_anything_runs() -> None:
    for names, dtypes, rounds, steps, batch, message in (
        (["huge"], [], 1, None, 1, "unknown scenario 'huge'"),
        (["tiny"], ["float16"], 1, None, 1, "unknown dtype 'float16'"),
        (["tiny"], [], 0, None, 1, "rounds is 0"),
        (["tiny"], [], 1, 0, 1, "steps 0 is outside 1 to"),
        (["tiny"], [], 1, 1, 0, "batch is 0"),
        (["tiny"], [], 1, 1, 65, "65 prompts exceed 64"),
    ):
        with pytest.raises(InvalidInput, match=message):
            suites.run_waterfall(
                "pipeline", names, dtypes, "cpu", rounds, steps, batch, False, Output(), silent
            )


GATE = {"errors": {"latents": 1e-6, "pixels": 3e-6}, "tolerance": 1e-4}


def link(name: str, seconds: float, before: float | None) -> dict[str, Any]:
    return {
        "name": name,
        "seconds": [seconds] * 3,
        "before": None if before is None else [before] * 3,
        "peak_bytes": 2**20,
        "gate": None if before is None else GATE,
    }


def test_gains_are_over_the_row_before_and_over_the_first_of_ours() -> None:
    chain = [
        link("diffusers", 12.0, None),
        link("everything that can be switched off", 10.0, 12.0),
        link("+ one", 5.0, 10.0),
        link("+ two", 4.0, 6.0),  # the row before was slower beside this one
    ]
    row = {
        "scenario": "sigma-256",
        "dtype": "float32",
        "failed": None,
        "links": chain,
        "text_layers": "6 of 24",
    }
    theirs, off, one, two = summarise([row])
    assert theirs["over the row before"] is None
    assert off["scenario"] == "sigma-256 (text layers: 6 of 24)"
    assert off["over the row before"] == "1.20x (1.20 to 1.20)"
    assert [each["over the first of ours"] for each in (theirs, off, one, two)] == [
        None,
        "1.00x",
        "2.00x",
        "3.00x",
    ]
    assert two["over the row before"] == "1.50x (1.50 to 1.50)"
    assert (two["s"], two["peak MiB"], two["gate"]) == (4.0, 1, "3.0e-06")
    failed = summarise([row | {"failed": "+ three: they differ"}])
    assert failed[-1]["gate"] == "failed: + three: they differ"
    assert failed[-1].keys() == theirs.keys()
