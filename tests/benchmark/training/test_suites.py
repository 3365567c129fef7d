import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pixart_sigma import tiled_attention
from pixart_sigma.benchmark.attention import attention
from pixart_sigma.benchmark.outcome import benchmark_device
from pixart_sigma.benchmark.run import Output, run_training
from pixart_sigma.benchmark.training import train_step as suite
from pixart_sigma.benchmark.training.plan_check import plan_check
from pixart_sigma.benchmark.training.scenarios import TINY
from pixart_sigma.benchmark.training.switches import Switches
from pixart_sigma.errors import InvalidInput, PixArtSigmaError

CPU = torch.device("cpu")


def test_the_suite_times_both_sides_of_a_scenario(tmp_path: Path) -> None:
    said: list[str] = []
    output = Output(tmp_path / "figures.json", tmp_path / "table.md")
    outcome = run_training("train-step", ["tiny"], "cpu", 2, False, output, said.append)
    assert "captions of 100 to 140 tokens, 120 on average" in said[0]
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["suite"] == "train-step"
    assert figures["options"] == {"rounds": 2}
    assert figures["machine"] in outcome.text
    assert (tmp_path / "table.md").read_text() == outcome.text + "\n"
    plain, ours = figures["rows"]
    assert plain["side"] == "diffusers + accelerate"
    assert plain["speed"] == "1.00x"
    assert plain["first error"] == ours["first error"]  # the same weights, data and function
    assert ours["samples/s"] == pytest.approx(TINY.batch_size / ours["s/step"])
    assert ours["peak MiB"] is None or ours["peak MiB"] > 0
    assert f"| tiny | ours | {ours['s/step']:.3g} |" in outcome.text


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
    for tokens in ("_TRAINED", "_DRAWN"):
        monkeypatch.setattr(f"pixart_sigma.benchmark.attention.{tokens}", ((16, 2),))
    monkeypatch.setattr(tiled_attention, "MULTIPLIES_BF16", True)
    rows = list(attention(CPU, 1, lambda line: None))
    assert [row["other way"] for row in rows] == 2 * 2 * 2 * ["written out"] + 2 * 3 * ["in tiles"]
    assert all(row["time"] == pytest.approx(row["its ms"] / row["fused ms"]) for row in rows)
    assert all(float(row["its error"]) < 2e-2 for row in rows if row["dtype"] == "bfloat16")


def test_what_cannot_be_is_refused() -> None:
    for scenarios, rounds, message in (
        (["tiny"], 0, "rounds is 0; it must be at least 1"),
        (["huge"], 1, "unknown scenario 'huge'"),
    ):
        with pytest.raises(InvalidInput, match=message):
            run_training("plan", scenarios, "cpu", rounds, False, Output(), lambda line: None)


def test_sides_that_differ_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def started(*_: object) -> Iterator[list[SimpleNamespace]]:
        yield [
            SimpleNamespace(name=name, ready={"losses": [loss]})
            for name, loss in (("plain", 1.0), ("ours", 1.02))
        ]

    monkeypatch.setattr(suite, "started", started)
    with pytest.raises(
        PixArtSigmaError, match=r"tiny: the first error of ours is 1.02000 and that of plain 1.00000"
    ):
        list(suite.train_step([TINY], CPU, 1, False, lambda line: None))


@pytest.mark.parametrize("device", ["meta", "cuda:1"])
def test_benchmarks_take_the_cpu_or_the_first_gpu(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    monkeypatch.setattr("pixart_sigma.benchmark.outcome.resolve_device", torch.device)
    assert benchmark_device("cpu") == torch.device("cpu")
    with pytest.raises(InvalidInput, match="CUDA_VISIBLE_DEVICES"):
        benchmark_device(device)
