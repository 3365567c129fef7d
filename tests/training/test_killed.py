"""A run that is killed at random moments and resumed ends like one that was not, to the bit.

Real runs in processes of their own, as users start them.
"""

import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from tiny_run import FRESH, PATIENCE, finish_run, recipe_file, start_run, stored, write_pictures

STEPS = 40
SETTINGS = FRESH | {
    "run.steps": STEPS,
    "run.checkpoint_every": 3,
    "run.validate_every": 20,
    "optimizer.kind": "came",
    "run.accumulate": 2,
}


def num_lines(output: Path) -> int:
    path = output / "metrics.jsonl"
    return len(path.read_text("utf-8").splitlines()) if path.exists() else 0


def kill_somewhere(processes: list[subprocess.Popen[bytes]], output: Path, chance: random.Random) -> None:
    """SIGKILL to all, up to a second after the run has got a few steps further."""
    goal = num_lines(output) + chance.randint(1, 6)
    waited = time.monotonic() + PATIENCE
    while num_lines(output) < goal and processes[0].poll() is None and time.monotonic() < waited:
        time.sleep(0.01)
    time.sleep(chance.random() * 0.1)
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()


def check_kills(tiny: Path, folder: Path, world: int, strategy: str, kills: int) -> None:
    pictures = write_pictures(folder / "pictures")
    encoders = {"scratch.autoencoder": str(tiny), "scratch.text_encoder": str(tiny)}
    recipe = recipe_file(folder, pictures, SETTINGS | encoders | {"parallel.strategy": strategy})
    whole, killed = folder / "whole", folder / "killed"
    assert finish_run(start_run(recipe, whole, world)) == [0] * world, (folder / "whole-0.log").read_text()
    chance = random.Random(f"{world} {kills}")
    for _ in range(kills):
        kill_somewhere(start_run(recipe, killed, world), killed, chance)
    assert finish_run(start_run(recipe, killed, world)) == [0] * world, (folder / "killed-0.log").read_text()
    expected, found = stored(whole), stored(killed)
    assert f"step {STEPS}" in (folder / "whole-0.log").read_text()
    assert expected.keys() == found.keys()
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    for name in ("export/transformer/diffusion_pytorch_model.safetensors", f"samples/step-{STEPS:08d}.png"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), name


@pytest.mark.parametrize(("world", "strategy"), [(1, "auto"), (2, "fsdp")])
def test_two_kills_change_nothing(world: int, strategy: str, tiny_folder: Path, tmp_path: Path) -> None:
    check_kills(tiny_folder, tmp_path, world, strategy, 2)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("world", "strategy"), [(1, "auto"), (2, "fsdp"), (2, "ddp")])
def test_ten_kills_change_nothing(world: int, strategy: str, tiny_folder: Path, tmp_path: Path) -> None:
    check_kills(tiny_folder, tmp_path, world, strategy, 10)


def test_sigterm_leaves_a_complete_checkpoint_within_seconds(tiny_folder: Path, tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "pictures")
    encoders = {"scratch.autoencoder": str(tiny_folder), "scratch.text_encoder": str(tiny_folder)}
    endless = {"run.steps": 100_000, "run.checkpoint_every": 100_000, "run.validate_every": 100_000}
    recipe = recipe_file(tmp_path, pictures, SETTINGS | encoders | endless)
    output = tmp_path / "out"
    processes = start_run(recipe, output, 2)
    waited = time.monotonic() + PATIENCE
    while num_lines(output) < 3 and time.monotonic() < waited:
        time.sleep(0.05)
    # The second process alone: the first must hear of it.
    began = time.monotonic()
    processes[1].send_signal(signal.SIGTERM)
    assert finish_run(processes) == [143, 143], (tmp_path / "out-0.log").read_text()
    assert time.monotonic() - began < 20
    (checkpoint,) = (output / "checkpoints").iterdir()
    assert checkpoint.name.startswith("step-")
    assert "its checkpoint is complete" in (tmp_path / "out-0.log").read_text()
    assert stored(output)
