import json
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from pixart_sigma.benchmark import run as suites
from pixart_sigma.benchmark import train_step as suite
from pixart_sigma.benchmark.attention import attention
from pixart_sigma.benchmark.plan_check import plan_check
from pixart_sigma.benchmark.processes import anonymous_memory, started
from pixart_sigma.benchmark.run import run_suite
from pixart_sigma.benchmark.scenarios import TINY
from pixart_sigma.benchmark.switches import Switches
from pixart_sigma.benchmark.table import render_table
from pixart_sigma.cli.benchmark import benchmark
from pixart_sigma.errors import InvalidInput, PixArtSigmaError

CPU = torch.device("cpu")


def test_the_suite_times_both_sides_of_a_scenario(tmp_path: Path) -> None:
    said: list[str] = []
    path = tmp_path / "figures.json"
    table = run_suite("train-step", ["tiny"], "cpu", 2, False, path, said.append)
    assert "captions of 100 to 140 tokens, 120 on average" in said[0]
    figures = json.loads(path.read_text())
    assert figures["suite"] == "train-step"
    assert figures["machine"] in table
    plain, ours = figures["rows"]
    assert plain["side"] == "diffusers + accelerate"
    assert plain["speed"] == "1.00x"
    assert plain["first error"] == ours["first error"]  # the same weights, data and function
    assert ours["samples/s"] == pytest.approx(TINY.batch_size / ours["s/step"])
    assert ours["peak MiB"] is None or ours["peak MiB"] > 0
    assert f"| tiny | ours | {ours['s/step']:.3g} |" in table


def test_the_ablations_are_timed_beside_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "ABLATIONS", {"AdamW not fused": Switches(fused_optimizer=False)})
    (row,) = suite.ablations([TINY], CPU, 1, lambda line: None)
    assert row["ours, but"] == "AdamW not fused"
    assert row["time"] == f"{row['s/step'] / row['ours s/step']:.2f}x"


def test_the_plan_suite_compares_prediction_and_measurement() -> None:
    (row,) = plan_check([TINY], CPU, 1, lambda line: None)
    parts = sum(row[name] for name in ("products s", "attention s", "elementwise s", "update s"))
    assert row["predicted s"] == pytest.approx(parts)
    assert row["error"] == f"{100 * (parts / row['measured s'] - 1):+.0f} %"


def test_the_attention_suite_has_a_row_for_each_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixart_sigma.benchmark.attention._TOKENS", ((16, 2),))
    rows = attention(CPU, 1, lambda line: None)
    assert len(rows) == 2 * 2 * 2
    assert all(row["plain / fused"] == pytest.approx(row["plain ms"] / row["fused ms"]) for row in rows)


def test_a_process_that_dies_is_one_line(tmp_path: Path) -> None:
    rows = {"broken": ("ours", Switches())}
    # What the command would have refused.
    with (
        pytest.raises(PixArtSigmaError, match=r"the process of 'broken' ended: RuntimeError: .*no device"),
        started("tiny", rows, "no device", tmp_path),
    ):
        pass


def test_what_would_be_ignored_is_refused() -> None:
    def run(suite: str, scenarios: list[str], rounds: int = 1, compiled: bool = False) -> None:
        run_suite(suite, scenarios, "cpu", rounds, compiled, None, lambda line: None)

    for arguments, message in (
        (("speed", []), "unknown suite 'speed'; one of train-step, ablations, plan, attention"),
        (("plan", ["tiny"], 0), "rounds is 0"),
        (("plan", ["tiny"], 1, True), "belongs to suite train-step, not to plan"),
        (("attention", ["tiny"]), "has no scenarios"),
        (("plan", ["huge"]), "unknown scenario 'huge'"),
    ):
        with pytest.raises(InvalidInput, match=message):
            run(*arguments)  # type: ignore[arg-type]


def test_a_table_is_markdown() -> None:
    rows = [{"a": 1, "b": 0.12345, "c": None}, {"a": 2, "b": 12345.6, "c": "x"}]
    assert render_table(rows) == "| a | b | c |\n|---|---|---|\n| 1 | 0.123 | - |\n| 2 | 12,346 | x |"


def test_memory_of_no_process_is_unknown() -> None:
    assert anonymous_memory(2**30) is None


def test_the_command_hands_everything_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[tuple[object, ...]] = []

    def remember(*arguments: object) -> str:
        calls.append(arguments[:-1])
        return "table"

    monkeypatch.setattr(suites, "run_suite", remember)
    app = typer.Typer()
    app.command()(benchmark)
    options = ["--scenario", "pocket", "--device", "cpu", "--rounds", "3", "--compile"]
    result = CliRunner().invoke(app, ["train-step", *options, "--json", str(tmp_path / "x.json")])
    assert result.output == "table\n"
    assert calls == [("train-step", ["pocket"], "cpu", 3, True, tmp_path / "x.json")]
