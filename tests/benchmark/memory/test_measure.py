import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pixart_sigma.benchmark.figures import read_figures
from pixart_sigma.benchmark.inference.random_pipeline import RandomPipeline
from pixart_sigma.benchmark.memory import measure, worker
from pixart_sigma.benchmark.memory.scenarios import SCENARIOS, choose
from pixart_sigma.benchmark.processes import Task, Worker
from pixart_sigma.benchmark.run import Output, run_memory
from pixart_sigma.encoders.autoencoder_memory import predict_decode_bytes
from pixart_sigma.encoders.tiling import Tiling, find_spill_folder
from pixart_sigma.errors import InvalidInput, PixArtSigmaError
from pixart_sigma.pipeline.memory.limit import GIB, MIB
from pixart_sigma.weights.folder import read_json

CPU = torch.device("cpu")


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's counters")
def test_ways_are_measured_in_processes_and_agree(tmp_path: Path) -> None:
    output = Output(tmp_path / "figures.json", tmp_path / "table.md")
    outcome = run_memory(["tiny-text"], "cpu", 2, output, lambda line: None)
    assert not outcome.failures
    (figures,) = read_figures(tmp_path / "figures.json")
    resident, streamed = figures["rows"]
    assert (resident["way"], streamed["way"]) == ("resident", "streamed")
    assert resident["difference"] is None
    assert streamed["difference"] == "equal, bit for bit"
    for row in (resident, streamed):
        assert row["resident MiB"] > row["imports MiB"] > 0
        assert row["peak MiB"] >= 0
    assert (tmp_path / "table.md").read_text("utf-8").count("tiny-text") == 2


@pytest.mark.parametrize("name", ["tiny-decode", "tiny-picture"])
def test_every_kind_of_work_has_a_prediction_and_one_result(name: str, tmp_path: Path) -> None:
    (scenario,) = choose([name], "cpu")
    assert scenario.weights is not None
    RandomPipeline(tmp_path, torch.float32, CPU).provide(scenario.weights)
    outputs = []
    for number, way in enumerate(scenario.ways):
        path = tmp_path / f"{number}.safetensors"
        arguments = {
            "scenario": name,
            "way": way.name,
            "folder": str(tmp_path),
            "device": "cpu",
            "num_steps": 2,
            "outputs": str(path),
        }
        _, work = worker._build(arguments)
        figures = work()
        assert figures["total"] > 0
        if way.limit_bytes is not None:
            assert figures["predicted"] > 0
        outputs.append(load_file(path))
    whole, divided = outputs
    assert whole.keys() == divided.keys()
    for key, tensor in whole.items():
        torch.testing.assert_close(divided[key], tensor, rtol=0, atol=1e-4)


def test_a_decode_is_predicted_with_its_weights(tmp_path: Path) -> None:
    (scenario,) = choose(["tiny-decode"], "cpu")
    assert scenario.weights is not None
    RandomPipeline(tmp_path, torch.float32, CPU).provide(scenario.weights)
    config = read_json(tmp_path / "vae" / "config.json")
    weights = load_file(tmp_path / "vae" / "diffusion_pytorch_model.safetensors")
    (_, divided) = scenario.ways
    _, predicted = worker._decode(scenario, divided, tmp_path, CPU)
    tiling = Tiling("exact", divided.limit_bytes, find_spill_folder())
    above = predict_decode_bytes(config, *scenario.size, 4, tiling)
    assert predicted == above + 4 * sum(weight.numel() for weight in weights.values())


def test_a_way_that_fails_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(task: Task, place: Path) -> Worker:
        raise PixArtSigmaError(f"no memory for {task.name}")

    monkeypatch.setattr(measure, "_run", run)
    rows = list(measure.measure_memory(choose(["pocket-1024"], "cpu"), CPU, 1, lambda line: None))
    assert [row["difference"] for row in rows] == [
        f"failed: no memory for {way.name}" for way in choose(["pocket-1024"], "cpu")[0].ways
    ]


def test_a_package_that_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "missing_package", lambda held: "a-package")
    (row, *_) = measure.measure_memory(choose(["tiny-text"], "cpu"), CPU, 1, lambda line: None)
    assert row["difference"] == "not run: a-package is not installed"


def test_what_a_gpu_has_to_keep_is_measured_there_and_on_a_cpu_only_if_asked_for() -> None:
    for_gpu = {scenario.name: scenario for scenario in SCENARIOS if scenario.gpu}
    assert not for_gpu.keys() & {scenario.name for scenario in choose([], "cpu")}
    assert for_gpu.keys() < {scenario.name for scenario in choose([], "cuda")}
    assert [scenario.name for scenario in choose(["picture-4k"], "cpu")] == ["picture-4k"]
    figures = {
        name: (scenario.size, scenario.dtype, [way.limit_bytes for way in scenario.ways])
        for name, scenario in for_gpu.items()
    }
    assert figures == {
        "staged-1024": ((1024, 1024), "bfloat16", [3 * GIB]),
        "picture-4k": ((2160, 3840), "bfloat16", [4 * GIB]),
    }


def test_on_a_gpu_the_host_does_not_count() -> None:
    worker = Worker("limit", process=None, log=Path(), memory=100 * MIB, idle=900 * MIB)  # type: ignore[arg-type]
    worker.runs.append({"total": 1.0, "predicted": 110 * MIB})
    on_gpu = measure._figures(worker, torch.device("cuda"))
    assert (on_gpu["imports MiB"], on_gpu["prediction"]) == (0, "+10%")
    assert measure._figures(worker, CPU)["prediction"] == "+1%"


def test_an_unknown_scenario_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"unknown scenario 'x'; one of t5-xxl, "):
        choose(["x"], "cpu")
