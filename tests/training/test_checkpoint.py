from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.checkpoint import HuggingFaceStorageWriter
from torch.distributed.tensor import DTensor

from pixart_sigma.errors import PixArtSigmaError, WeightsError
from pixart_sigma.pipeline.placement.processes import Processes
from pixart_sigma.training.checkpoint import Checkpoints, TrainingState, finished_checkpoints
from pixart_sigma.training.optimizers import MovingAverage, build_optimizers
from pixart_sigma.training.parallel import Parallel, parallelise
from pixart_sigma.training.recipe.process import OptimizerRecipe
from ranks import run_ranks
from tiny_objective import Objective, batch_of, recipes

KINDS = ["adamw", "muon", "came", "adamw-8bit"]
NOTES = {"step": 3, "skipped": 1}
RECIPE = "kind = 'any'\n"
State = dict[str, Any]


class Odd(torch.optim.Optimizer):
    """State of every sort: number, text, scalar tensor, another shape, bf16; weights without gradient have none."""

    def __init__(self, weights: Any) -> None:
        super().__init__(weights, {"lr": 0.1})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for weight in self.param_groups[0]["params"]:
            if weight.grad is None:
                continue
            state = self.state[weight]
            if not state:
                state |= {"count": 0, "phase": "warm", "rms": torch.tensor(0.0), "sums": torch.zeros(3, 2)}
                state["low"] = torch.zeros_like(weight, dtype=torch.bfloat16)
            state["count"] += 1
            state["phase"] = f"after {state['count']}"
            state["rms"].add_(weight.square().mean())
            state["sums"].add_(weight.sum() * 0.1)
            state["low"].add_(weight)
            weight.sub_(weight.grad, alpha=self.param_groups[0]["lr"])


class Run:
    """A run of the loop in small: `done` steps of training with what a checkpoint holds."""

    def __init__(self, kind: str = "adamw", strategy: str = "auto", num_layers: int = 1) -> None:
        started = dist.is_initialized()
        rank, world = (dist.get_rank(), dist.get_world_size()) if started else (0, 1)
        self.processes = Processes(rank, world, rank, torch.device("cpu"))
        model = Objective(num_layers)
        model.transformer.pos_embed.requires_grad_(False)
        self.parallel: Parallel = parallelise(model, model.blocks(), *recipes(strategy), self.processes)
        self.optimizers: list[torch.optim.Optimizer]
        if kind == "odd":
            self.optimizers = [Odd([weight for weight in model.parameters() if weight.requires_grad])]
        else:
            self.optimizers = build_optimizers(model, OptimizerRecipe(kind=kind, learning_rate=1e-2))
        self.average = MovingAverage(model, 0.9)
        self.state = TrainingState(model, self.average, self.optimizers)

    def train(self, steps: range) -> None:
        size = 12 // self.processes.world
        part = slice(self.processes.rank * size, (self.processes.rank + 1) * size)
        for step in steps:
            self.parallel.model(batch_of(step, 12, part, self.processes.world / 12))["loss"].backward()
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad()
            self.average.update(step)

    def everything(self) -> State:
        """Copies of all that a checkpoint must hold, whole."""
        found: State = dict(self.parallel.inner.named_parameters())
        found |= {f"average {name}": tensor for name, tensor in self.average.tensors.items()}
        names = {weight: name for name, weight in self.parallel.inner.named_parameters()}
        for optimizer in self.optimizers:
            for weight, state in optimizer.state.items():
                found |= {f"{key} of {names[weight]}": value for key, value in state.items()}
        return {name: whole(value) for name, value in found.items()}

    def checkpoints(self, folder: Path, keep_last: int = 2, keep_every: int | None = None) -> Checkpoints:
        return Checkpoints(folder, self.processes, keep_last, keep_every)


def whole(value: Any) -> Any:
    if isinstance(value, DTensor):
        value = value.full_tensor()
    return value.detach().clone() if isinstance(value, Tensor) else value


def same(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(
        torch.equal(a[name], b[name]) and a[name].dtype == b[name].dtype
        if isinstance(a[name], Tensor)
        else a[name] == b[name]
        for name in a
    )


def saved(folder: Path, kind: str = "adamw", **options: Any) -> Run:
    run = Run(kind, **options)
    run.train(range(3))
    checkpoints = run.checkpoints(folder)
    checkpoints.save(3, run.state, NOTES, RECIPE)
    checkpoints.wait()
    return run


@pytest.mark.parametrize("kind", [*KINDS, "odd"])
def test_a_run_goes_on_from_a_checkpoint_bit_for_bit(tmp_path: Path, kind: str) -> None:
    run = Run(kind)
    run.train(range(3))
    at_three = run.everything()
    checkpoints = run.checkpoints(tmp_path)
    checkpoints.save(3, run.state, NOTES, RECIPE)
    run.train(range(3, 6))  # while it is written
    checkpoints.wait()

    other = Run(kind)
    path = other.checkpoints(tmp_path).newest()
    assert path == tmp_path / "step-00000003"
    for weight in other.parallel.inner.parameters():
        if weight.requires_grad:
            weight.data.zero_()
    assert other.checkpoints(tmp_path).load(path, other.state) == NOTES
    assert same(other.everything(), at_three)
    other.train(range(3, 6))
    assert same(other.everything(), run.everything())


def test_the_state_is_copied_before_save_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run()
    run.train(range(3))
    before = run.everything()
    released = threading.Event()
    write = HuggingFaceStorageWriter.write_data

    def held(writer: Any, *arguments: Any) -> Any:
        assert released.wait(60)
        return write(writer, *arguments)

    monkeypatch.setattr(HuggingFaceStorageWriter, "write_data", held)
    checkpoints = run.checkpoints(tmp_path)
    checkpoints.save(3, run.state, NOTES, RECIPE)
    run.train(range(3, 5))
    checkpoints.poll()
    assert checkpoints.finished() == []
    released.set()
    checkpoints.wait()
    other = Run()
    other.checkpoints(tmp_path).load(tmp_path / "step-00000003", other.state)
    assert same(other.everything(), before)


def test_frozen_weights_are_not_stored_and_nothing_is_pickled(tmp_path: Path) -> None:
    saved(tmp_path)
    folder = tmp_path / "step-00000003"
    tensors: State = {}
    for file in folder.glob("*.safetensors"):
        tensors |= load_file(file)
    assert {path.suffix for path in folder.iterdir()} == {".safetensors", ".json", ".toml"}
    assert not any("pos_embed" in name for name in tensors)
    assert "weights.transformer.proj_out.weight" in tensors
    assert "average.transformer.proj_out.weight" in tensors
    assert (folder / "recipe.toml").read_text() == RECIPE
    assert json.loads((folder / "state.json").read_text())["notes"] == NOTES


def test_large_states_take_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixart_sigma.training.checkpoint._FILE_BYTES", 10_000)
    run = saved(tmp_path)
    files = list((tmp_path / "step-00000003").glob("*.safetensors"))
    assert len(files) > 5
    assert max(file.stat().st_size for file in files) < 50_000
    other = Run()
    other.checkpoints(tmp_path).load(tmp_path / "step-00000003", other.state)
    assert same(other.everything(), run.everything())


def test_a_checkpoint_of_no_steps_leaves_the_optimiser_fresh(tmp_path: Path) -> None:
    run = Run()
    checkpoints = run.checkpoints(tmp_path)
    checkpoints.save(0, run.state, {}, RECIPE)
    checkpoints.wait()
    other = Run()
    other.train(range(2))
    other.checkpoints(tmp_path).load(tmp_path / "step-00000000", other.state)
    for some in (run, other):
        some.train(range(2))
    assert same(other.everything(), run.everything())


def test_old_checkpoints_go_but_for_the_newest_and_the_milestones(tmp_path: Path) -> None:
    run = Run()
    checkpoints = run.checkpoints(tmp_path, keep_last=2, keep_every=4)
    for step in range(1, 8):
        checkpoints.save(step, run.state, {}, RECIPE)
        checkpoints.save(step, run.state, {}, RECIPE)  # a signal right after a checkpoint
    checkpoints.wait()
    assert [path.name for path in checkpoints.finished()] == [
        "step-00000004",
        "step-00000006",
        "step-00000007",
    ]


def test_half_a_checkpoint_is_not_one(tmp_path: Path) -> None:
    saved(tmp_path)
    leftover = tmp_path / ".step-00000009.writing"
    shutil.copytree(tmp_path / "step-00000003", leftover)
    checkpoints = Run().checkpoints(tmp_path)
    assert checkpoints.newest() == tmp_path / "step-00000003"
    assert not leftover.exists()
    assert finished_checkpoints(tmp_path / "absent") == []


def test_another_model_or_optimiser_is_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    path = tmp_path / "step-00000003"
    for other, what in ((Run(num_layers=2), "other weights"), (Run("came"), "another optimiser")):
        with pytest.raises(WeightsError, match=what) as caught:
            other.checkpoints(tmp_path).load(path, other.state)
        assert str(path / "recipe.toml") in str(caught.value)
        assert "\n" not in str(caught.value)
    model = Objective(num_layers=1)
    model.transformer.pos_embed.requires_grad_(False)
    model.transformer.proj_out.weight = nn.Parameter(torch.zeros(64, 16))
    optimizers = build_optimizers(model, OptimizerRecipe())
    with pytest.raises(WeightsError, match=r"4 differ, as average\.transformer\.proj_out\.weight"):
        Run().checkpoints(tmp_path).load(path, TrainingState(model, MovingAverage(model, 0.9), optimizers))


@pytest.mark.parametrize("damage", ["cut", "garbage", "no state", "no file"])
def test_a_damaged_checkpoint_is_told_in_one_line(tmp_path: Path, damage: str) -> None:
    run = saved(tmp_path)
    path = tmp_path / "step-00000003"
    [shard] = path.glob("*.safetensors")
    content = shard.read_bytes()
    if damage == "cut":
        shard.write_bytes(content[: len(content) // 2])
    elif damage == "garbage":
        shard.write_bytes(b"\xff" * len(content))
    elif damage == "no state":
        (path / "state.json").unlink()
    else:
        shard.unlink()
    with pytest.raises(WeightsError, match="step-00000003") as caught:
        run.checkpoints(tmp_path).load(path, run.state)
    assert "\n" not in str(caught.value)


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    run = saved(tmp_path)
    checkpoints = run.checkpoints(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))  # bytes a file; Python ignores the signal
    try:
        checkpoints.save(4, run.state, NOTES, RECIPE)
        with pytest.raises(PixArtSigmaError, match=r"File too large.*resume from step-00000003") as caught:
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]
    checkpoints.save(4, run.state, NOTES, RECIPE)  # once there is room
    checkpoints.wait()
    assert len(checkpoints.finished()) == 2


def test_a_mistake_of_ours_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mistaken(*arguments: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(HuggingFaceStorageWriter, "write_data", mistaken)
    run = Run()
    checkpoints = run.checkpoints(tmp_path)
    checkpoints.save(1, run.state, NOTES, RECIPE)
    with pytest.raises(BaseException, match="ZeroDivisionError"):
        checkpoints.wait()
    assert list(tmp_path.iterdir()) == []


# Several processes


def save_sharded(folder: Path) -> list[State]:
    results = []
    for kind, strategy in (("adamw", "fsdp"), ("came", "fsdp"), ("muon", "ddp")):
        run = saved(folder / kind, kind, strategy=strategy)
        results.append(run.everything())
    return results


def load_sharded(folder: Path) -> list[State]:
    results = []
    for kind in ("adamw", "came", "muon"):
        run = Run(kind, strategy="fsdp")
        checkpoints = run.checkpoints(folder / kind)
        path = checkpoints.newest()
        assert path is not None
        assert checkpoints.load(path, run.state) == NOTES
        results.append(run.everything())
        run.train(range(3, 4))
    return results


def test_another_number_of_processes_goes_on_bit_for_bit(tmp_path: Path) -> None:
    two = run_ranks(2, save_sharded, tmp_path)
    assert len(list((tmp_path / "adamw/step-00000003").glob("shard-*.safetensors"))) == 2
    three = run_ranks(3, load_sharded, tmp_path)  # some parts of three are empty
    for expected, *found in zip(two[0], load_sharded(tmp_path), *three, strict=True):
        assert all(same(state, expected) for state in found)
    for shard in sorted((tmp_path / "adamw/step-00000003").glob("shard-*.safetensors")):
        shard.rename(tmp_path / shard.name)
        with pytest.raises(WeightsError, match=r"step-00000003 (lacks parts of|has other weights)"):
            load_sharded(tmp_path)
        (tmp_path / shard.name).rename(shard)


def fail_on_one(folder: Path) -> list[str]:
    """What each way of noticing says on this process when the second one has no room."""
    run = saved(folder)
    write = HuggingFaceStorageWriter.write_data

    def full(writer: Any, *arguments: Any) -> Any:
        if run.processes.rank == 1:
            time.sleep(0.3)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(writer, *arguments)

    HuggingFaceStorageWriter.write_data = full
    checkpoints = run.checkpoints(folder)
    messages = []
    for notice in ("poll", "wait", "save"):
        checkpoints.save(4, run.state, NOTES, RECIPE)
        polls = 0
        try:
            if notice == "save":
                checkpoints.save(5, run.state, NOTES, RECIPE)
            elif notice == "wait":
                checkpoints.wait()
            else:
                for polls in range(1000):  # noqa: B007
                    checkpoints.poll()
                    time.sleep(0.01)
        except PixArtSigmaError as error:
            messages.append(f"{polls}: {error}")
    return [*messages, *sorted(path.name for path in folder.iterdir())]


def test_a_full_disk_of_one_process_is_told_by_all_at_the_same_step(tmp_path: Path) -> None:
    first, second = run_ranks(2, fail_on_one, tmp_path)
    assert first == second
    assert len(first) == 4
    assert all("No space left on device" in message for message in first[:3])
    assert first[3] == "step-00000003"
