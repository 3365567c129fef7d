import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pixart_sigma.benchmark import machine
from pixart_sigma.benchmark.growth import measure, rates, worker
from pixart_sigma.benchmark.growth import run as suites
from pixart_sigma.benchmark.growth.prediction import predicted_saving
from pixart_sigma.benchmark.growth.rates import Rates
from pixart_sigma.benchmark.growth.scenarios import SCENARIOS, TINY, choose
from pixart_sigma.benchmark.inference.random_pipeline import RandomPipeline
from pixart_sigma.benchmark.outcome import Output
from pixart_sigma.benchmark.processes import started
from pixart_sigma.errors import InvalidInput
from pixart_sigma.pipeline.device import DTYPES
from workers_here import starting_here

CPU = torch.device("cpu")
BY_NAME = {scenario.name: scenario for several in SCENARIOS.values() for scenario in several}


@pytest.fixture(autouse=True)
def small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_CPU_SIDE", 64)
    monkeypatch.setattr(rates, "_REPEATS", 1)


def silent(line: str) -> None:
    """Nobody listens."""


def test_the_scenarios_are_those_of_the_paper() -> None:
    four_k = BY_NAME["xl-4k"]
    assert four_k.grid == (135, 240)
    assert four_k.num_keys == 68 * 120  # an odd side is continued
    assert four_k.compression.blocks == tuple(range(14, 28))
    assert BY_NAME["xl-4-blocks-2k"].compression.blocks == (2, 3)
    names = [scenario.name for scenario in choose("kv-compression", [], "cpu")]
    assert names == ["xl-512", "xl-1024", "xl-4-blocks-2k"]
    assert len(choose("kv-compression", [], "cuda")) == len(SCENARIOS["kv-compression"])
    with pytest.raises(InvalidInput, match="unknown scenario 'huge'; one of xl-512"):
        choose("kv-compression", ["huge"], "cpu")


def test_the_prediction_is_counted_operations_over_rates() -> None:
    scenario = BY_NAME["xl-4-blocks-2k"]
    tokens, width, blocks = 128**2, 1152, 2
    rates = Rates(matrix=4e11, whole=1e11, compressed=5e10)
    scores = blocks * 4 * tokens * width
    attention = scores * tokens / 1e11 - scores * (tokens / 4) / 5e10
    conv = predicted_saving(scenario, "2x2 conv", rates)
    average = predicted_saving(scenario, "2x2 average", rates)
    assert conv.attention == average.attention == pytest.approx(attention)
    # Keys and values are projected once a window for the average; the convolution saves no product.
    assert conv.products == pytest.approx(0)
    assert average.products == pytest.approx(blocks * 2 * 2 * (tokens - tokens / 4) * width**2 / 4e11)
    assert average.total == average.attention + average.products


def test_a_way_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    scenario = TINY["kv-compression"][0]
    RandomPipeline(tmp_path, torch.float32, CPU).provide(scenario.weights)
    task = measure._task("kv-compression", scenario, "2x2 conv", "float32", CPU, tmp_path)
    with started([task], tmp_path) as (process,):
        assert process.ready["failure"] is None
        process.take(2)
    assert len(process.seconds) == 2


def test_ways_are_timed_beside_their_predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "started", starting_here(worker))
    output = Output(tmp_path / "figures.json", tmp_path / "table.md")
    outcome = suites.run_compression(["tiny"], ["float32"], "cpu", 2, output, silent)
    assert outcome.failures == ()
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["suite"] == "kv-compression"
    (row,) = figures["rows"]
    assert (row["tokens"], row["keys"], row["blocks"]) == (96, 24, [1, 2])
    assert list(row["ways"]) == ["R = 1", "2x2 conv", "2x2 average"]
    for way in row["ways"].values():
        assert len(way["seconds"]) == 2
        assert way["gate"]["errors"]["prediction"] <= way["gate"]["tolerance"] == 1e-4
    assert "predicted" not in row["ways"]["R = 1"]
    assert outcome.text.count("| tiny | 0 of 2 | 96 | float32 | R = 1 |") == 1
    assert outcome.text.count("| tiny | 1 of 2 | 96 | float32 | 2x2 ") == 2
    assert (tmp_path / "table.md").read_text() == outcome.text + "\n"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_wrong_compression_is_not_timed(
    dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_a_way = worker.in_a_way

    def faulty(model: Any, way: Any) -> Any:
        changed = in_a_way(model, way)
        if way == "2x2 conv":
            attention = changed.transformer_blocks[1].attn1
            right = attention.forward
            attention.forward = lambda *given: 1.01 * right(*given)
        return changed

    monkeypatch.setattr(measure, "started", starting_here(worker))
    scenario = TINY["kv-compression"][0]
    RandomPipeline(tmp_path, DTYPES[dtype], CPU).provide(scenario.weights)
    arguments = ("kv-compression", scenario, dtype, CPU, 1, tmp_path, silent)
    assert measure.measure_row(*arguments)["failed"] is None
    monkeypatch.setattr(worker, "in_a_way", faulty)
    row = measure.measure_row(*arguments)
    assert row["failed"].startswith("2x2 conv: the two sides differ: prediction ")
    assert "ways" not in row


def test_scaling_fits_what_was_timed_and_goes_beyond(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "started", starting_here(worker))
    names = ["tiny-64", "tiny-128", "tiny-192"]
    output = Output(tmp_path / "figures.json")
    outcome = suites.run_scaling(names, ["float32"], "cpu", 1, tmp_path / "growth.png", output, silent)
    assert outcome.failures == ()
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert [row["tokens"] for row in figures["rows"]] == [16, 64, 144, 256]
    assert figures["fits"].keys() == {"float32, R = 1", "float32, 2x2 conv"}
    assert "ways" not in figures["rows"][-1]
    assert outcome.text.count("| extrapolated |") == 2
    assert outcome.text.count("| measured |") == 6
    assert "Fits, N tokens: float32, R = 1: " in outcome.text
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="scaling of 2 sizes has no fit; name at least 3"):
        suites.run_scaling(["tiny-64", "tiny-128"], [], "cpu", 1, None, Output(), silent)
    with pytest.raises(InvalidInput, match="unknown dtype 'float16'"):
        suites.run_compression(["tiny"], ["float16"], "cpu", 1, Output(), silent)
    with pytest.raises(InvalidInput, match="rounds is 0"):
        suites.run_compression(["tiny"], [], "cpu", 0, Output(), silent)
    nowhere = tmp_path / "nowhere" / "plot.png"
    with pytest.raises(InvalidInput, match="does not exist; create it first"):
        suites.run_scaling(["tiny-64", "tiny-128", "tiny-192"], [], "cpu", 1, nowhere, Output(), silent)
