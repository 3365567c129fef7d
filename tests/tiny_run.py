"""Recipes of a second: tiny pictures in a folder, the tiny pipeline, 32 px. Used by the tests of whole runs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from safetensors.torch import load_file
from torch import Tensor

from pixart_sigma.training.checkpoint import finished_checkpoints

PATIENCE = 120.0
"""Seconds that a run may take on a busy machine."""
RUN: dict[str, Any] = {
    "kind": "transformer",
    "run.steps": 4,
    "run.batch_size": 4,
    "run.device": "cpu",
    "run.compile": False,
    "run.precision": "fp32",
    "run.log_every": 1,
    "run.validate_every": 4,
    "run.checkpoint_every": 2,
    "run.trackers": [],
    "run.ema_decay": 0.5,
    "optimizer.learning_rate": 1e-3,
    "data.buckets": "square",
    "samples.prompts": ["a red house"],
    "samples.num_steps": 1,
}
FRESH: dict[str, Any] = {
    "scratch.num_layers": 2,
    "scratch.num_attention_heads": 2,
    "scratch.attention_head_dim": 12,
    "scratch.sample_size": 4,
    "scratch.interpolation_scale": 0.0625,
}


def write_pictures(folder: Path, num: int = 8) -> Path:
    """`num` pictures of changing shape, each with a caption beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(num):
        width, height = 40 + 8 * (index % 3), 40 + 4 * (index % 2)
        picture = Image.new("RGB", (width, height), (30 * index % 255, 90, 200))
        ImageDraw.Draw(picture).ellipse((4, 4, 30, 30), fill=(250, 20 * index % 255, 0))
        picture.save(folder / f"{index:02d}.png")
        (folder / f"{index:02d}.txt").write_text(f"a {'red' if index % 2 else 'blue'} house", "utf-8")
    return folder


def overrides(settings: dict[str, Any]) -> list[str]:
    """{"run.steps": 4} → ["run.steps=4"]."""
    return [f"{name}={json.dumps(value)}" for name, value in settings.items()]


def recipe_file(folder: Path, pictures: Path, settings: dict[str, Any]) -> str:
    """A recipe of `RUN` and `settings` (dotted names; None takes a name away) over a folder of pictures."""
    table: dict[str, Any] = {}
    chosen = RUN | settings
    if not any(name.startswith("data.sources") for name in chosen):
        chosen |= {"data.sources": [{"folder": str(pictures)}]}
    for name, value in chosen.items():
        *path, key = name.split(".")
        place = table
        for part in path:
            place = place.setdefault(part, {})
        if value is not None:
            place[key] = value
    import tomli_w

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.toml"
    path.write_text(tomli_w.dumps(table), "utf-8")
    return str(path)


def start_run(recipe: str, output: Path, world: int) -> list[subprocess.Popen[bytes]]:
    """The command, once for each process, as torchrun would start it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = []
    command = [sys.executable, "-m", "pixart_sigma", "train", recipe, "-o", str(output), "--resume"]
    for rank in range(world):
        environment = os.environ | {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(world),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        with (output.parent / f"{output.name}-{rank}.log").open("ab") as log:
            processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
    return processes


def finish_run(processes: list[subprocess.Popen[bytes]]) -> list[int]:
    return [process.wait(PATIENCE) for process in processes]


def newest(output: Path) -> Path:
    return finished_checkpoints(output / "checkpoints")[-1]


def stored(output: Path) -> dict[str, Tensor]:
    """All tensors of the newest checkpoint."""
    return {
        name: tensor
        for path in sorted(newest(output).glob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }
