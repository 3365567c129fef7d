import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pixart_sigma.benchmark import run as suites
from pixart_sigma.benchmark.inference import measure, worker
from pixart_sigma.benchmark.inference.scenarios import SCENARIOS, TINY
from pixart_sigma.benchmark.inference.tasks import Setting, Side
from pixart_sigma.benchmark.outcome import Output
from pixart_sigma.benchmark.processes import Task, Worker
from pixart_sigma.benchmark.run import run_inference
from pixart_sigma.errors import InvalidInput, PixArtSigmaError
from workers_here import starting_here

CPU = torch.device("cpu")
GIB = 2**30


started_here = starting_here(worker)


def test_both_sides_run_in_processes_and_the_figures_are_kept(tmp_path: Path) -> None:
    said: list[str] = []
    output = Output(tmp_path / "figures.json", tmp_path / "table.md")
    outcome = run_inference("pipeline", ["tiny"], ["float32"], "cpu", 2, 2, 1, False, output, said.append)
    assert outcome.failures == ()
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["options"] == {"rounds": 2, "steps": 2}
    assert figures["versions"].keys() >= {"torch", "diffusers", "transformers"}
    (row,) = figures["rows"]
    assert row["failed"] is None
    assert row["gate"]["errors"].keys() == {"latents", "pixels"}
    assert max(row["gate"]["errors"].values()) <= row["gate"]["tolerance"] == 1e-4
    for side in row["sides"].values():
        assert len(side["seconds"]) == 2
        stages = [sum(run) for run in zip(*side["stages"].values(), strict=True)]
        assert stages == pytest.approx(side["seconds"])
    assert row["speed"]["low"] <= row["speed"]["estimate"] <= row["speed"]["high"]
    assert outcome.text.count("| tiny | float32 |") == 2
    assert (tmp_path / "table.md").read_text() == outcome.text + "\n"


def test_a_row_that_fails_its_gate_is_not_timed(
    tmp_path: Path, tiny_weights: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    good, faulty = tiny_weights("float32"), tmp_path / "faulty"
    shutil.copytree(good, faulty)
    file = faulty / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["transformer_blocks.1.attn1.to_q.weight"] *= 1.1
    save_file(weights, file, metadata={"format": "pt"})
    monkeypatch.setattr(measure, "started", started_here)

    def row(ours: Path) -> dict[str, object]:
        folders: dict[Side, Path] = {"diffusers": good, "ours": ours}
        setting = Setting("transformer", TINY["transformer"][0], "float32", CPU, 1)
        return measure.measure_row(setting, 1, folders, lambda line: None)

    failed = row(faulty)
    assert str(failed["failed"]).startswith("the two sides differ: prediction ")
    assert not failed.keys() & {"speed", "sides", "matrix_rate"}
    assert row(good)["failed"] is None


def test_a_failed_row_leaves_the_others_and_is_told_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def dying(tasks: Sequence[Task], folder: Path) -> Iterator[list[Worker]]:
        if tasks[0].arguments["scenario"] == "tiny":
            raise PixArtSigmaError("the process of 'ours' ended (killed)")
        with started_here(tasks, folder) as workers:
            yield workers

    monkeypatch.setattr(measure, "started", dying)
    scenarios = ["tiny", "tiny-encode"]
    outcome = run_inference(
        "vae", scenarios, ["float32"], "cpu", 1, None, 1, False, Output(), lambda line: None
    )
    assert outcome.failures == ("tiny in float32: the process of 'ours' ended (killed)",)
    assert "| failed: the process of 'ours' ended (killed) |" in outcome.text
    assert "| tiny-encode | float32 | ours |" in outcome.text


def test_compiled_sides_have_a_row_of_their_own_and_begin_with_an_empty_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Eagerly: what matters is which process is told what."""
    begun: list[list[tuple[str, str | None]]] = []

    @contextlib.contextmanager
    def noting(tasks: Sequence[Task], folder: Path) -> Iterator[list[Worker]]:
        begun.append([(task.name, task.arguments["compiled_in"]) for task in tasks])
        eager = [Task(task.name, task.module, task.arguments | {"compiled_in": None}) for task in tasks]
        with started_here(eager, folder) as workers:
            for worker in workers:
                worker.ready["warm_up_seconds"] = float(len(begun))
            yield workers

    monkeypatch.setattr(measure, "started", noting)
    monkeypatch.setattr(suites, "check_compiler", lambda: None)
    outcome = run_inference(
        "transformer", ["tiny"], ["float32"], "cpu", 1, None, 1, True, Output(), lambda line: None
    )
    eager, empty_theirs, empty_ours, warm = begun
    assert eager == [("diffusers", None), ("ours", None)]
    assert warm == [*empty_theirs, *empty_ours]
    folders = [folder for _, folder in warm]
    assert None not in folders
    assert len(set(folders)) == 2  # each side has a cache of its own
    assert outcome.text.count("| tiny | float32 | eager |") == 2
    assert outcome.text.count("| tiny | float32 | compiled |") == 2
    header, *lines = (line.split(" | ") for line in outcome.text.splitlines() if line.startswith("| "))
    column = header.index("first run s, empty cache")
    assert [line[column : column + 2] for line in lines] == [["-", "-"]] * 2 + [["2", "4"], ["3", "4"]]


@pytest.mark.parametrize(
    ("gib", "dtype", "num_layers"),
    [(24, torch.bfloat16, 24), (24, torch.float32, 6), (16, torch.bfloat16, 6), (64, torch.float32, 24)],
)
def test_a_text_encoder_that_memory_does_not_hold_is_cut(
    monkeypatch: pytest.MonkeyPatch, gib: int, dtype: torch.dtype, num_layers: int
) -> None:
    monkeypatch.setattr(measure, "memory_bytes", lambda device: gib * GIB)
    (scenario,) = SCENARIOS["text-encoder"]
    assert measure.fitting(scenario, dtype, CPU).shapes.text_encoder.num_layers == num_layers
    transformer = SCENARIOS["transformer"][0]
    assert measure.fitting(transformer, dtype, CPU) is transformer


def test_what_cannot_be_is_refused_before_anything_runs(tmp_path: Path) -> None:
    for names, dtypes, rounds, steps, batch, message in (
        (["huge"], [], 1, None, 1, "unknown scenario 'huge'"),
        (["tiny"], ["float16"], 1, None, 1, "unknown dtype 'float16'; one of float32, bfloat16"),
        (["tiny"], [], 0, None, 1, "rounds is 0"),
        (["tiny"], [], 1, 0, 1, "steps 0 is outside 1 to"),
        (["tiny"], [], 1, 1, 0, "batch is 0"),
        (["tiny"], [], 1, 1, 65, "65 prompts exceed 64"),
    ):
        with pytest.raises(InvalidInput, match=message):
            run_inference(
                "pipeline", names, dtypes, "cpu", rounds, steps, batch, False, Output(), lambda line: None
            )
    with pytest.raises(InvalidInput, match="does not exist; create it first"):
        Output(tmp_path / "nowhere" / "x.json")
