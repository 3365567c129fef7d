"""The one training loop: autocast, optimisers, moving average, checkpoints, validation, metrics.

A task says what is trained, what a step's loss is, how to validate and what to export. The loop does not know what
the task computes, and holds no random state: a task keys its draws by the step.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pixart_sigma.errors import PixArtSigmaError
from pixart_sigma.training.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from pixart_sigma.training.optimizers import MovingAverage, build_optimizers, rate_factor, set_rate
from pixart_sigma.training.progress import Progress
from pixart_sigma.training.recipe import Recipe, RunRecipe


class Task(Protocol):
    """What the loop asks of an autoencoder, text encoder or transformer run."""

    @property
    def model(self) -> nn.Module:
        """Everything with weights; those that require a gradient are trained."""

    def compile(self) -> None:
        """Compile whatever is worth compiling."""

    def loss(self, step: int) -> dict[str, Tensor]:
        """Scalars of the batch of `step`; the one named "loss" is minimised. Runs under autocast."""

    def validate(self, step: int, folder: Path) -> dict[str, float]:
        """Held-out figures of the averaged weights; pictures go to `folder`. Runs under autocast."""

    def export(self, folder: Path) -> dict[str, float]:
        """Write the averaged weights in diffusers layout and return closing figures."""


def run_loop(task: Task, recipe: Recipe, output: Path, device: torch.device) -> dict[str, float]:
    """Train `task` for recipe.run.steps steps, then export to `output/export`. Returns the closing figures.

    The newest checkpoint under `output/checkpoints`, if there is one, is continued.
    """
    run = recipe.run
    # Dropout would draw from the global generator, which no key and no checkpoint holds; nothing here wants it.
    task.model.eval()
    optimizers = build_optimizers(task.model, recipe.optimizer)
    average = MovingAverage(task.model, run.ema_decay)
    done = 0
    found = checkpoints(output / "checkpoints")
    if found:
        done = load_checkpoint(found[-1], task.model, average, optimizers)
    if run.compile:
        task.compile()
    samples = output / "samples"
    samples.mkdir(parents=True, exist_ok=True)
    metrics = _Metrics(output / "metrics.jsonl", done)
    trained = [weight for weight in task.model.parameters() if weight.requires_grad]
    num_weights = sum(weight.numel() for weight in trained)

    with Progress(run.steps, done, run.batch_size) as progress:
        progress.say(f"{recipe.kind}: {num_weights:,} weights, steps {done}…{run.steps} on {device}")
        running: dict[str, Tensor] = {}
        for step in range(done, run.steps):
            set_rate(optimizers, rate_factor(step, run))
            with _autocast(run, device):
                terms = task.loss(step)
            terms["loss"].backward()
            norm = nn.utils.clip_grad_norm_(trained, run.gradient_clip, foreach=True)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            average.update(step)
            for name, value in (terms | {"gradient_norm": norm}).items():
                running[name] = running.get(name, 0) + value.detach()
            finished = step + 1
            progress.advance()
            if finished % run.log_every == 0 or finished == run.steps:
                count = finished % run.log_every or run.log_every
                count = min(count, finished - done)
                figures = {name: float(value) / count for name, value in running.items()}
                running.clear()
                if not math.isfinite(figures["loss"]):
                    raise PixArtSigmaError(
                        f"the loss was not finite near step {finished}; lower optimizer.learning_rate and resume"
                    )
                rate = rate_factor(step, run)
                metrics.write(finished, figures | {"rate": rate, "images_per_second": progress.speed()})
                progress.log(finished, figures)
            if finished % run.validate_every == 0 or finished == run.steps:
                average.swap()
                with torch.no_grad(), _autocast(run, device):
                    figures = task.validate(finished, samples)
                average.swap()
                metrics.write(finished, {f"validation_{name}": value for name, value in figures.items()})
                progress.say(f"step {finished}: " + _line(figures, "validation "))
                progress.pause()
            if finished % run.checkpoint_every == 0 or finished == run.steps:
                save_checkpoint(
                    output / "checkpoints",
                    finished,
                    task.model,
                    average,
                    optimizers,
                    recipe,
                    run.keep_checkpoints,
                )
                progress.pause()
        average.swap()
        with torch.no_grad():
            closing = task.export(output / "export")
        average.swap()
        metrics.write(run.steps, {f"export_{name}": value for name, value in closing.items()})
        progress.say(f"exported to {output / 'export'}: " + _line(closing, ""))
    return closing


def _autocast(run: RunRecipe, device: torch.device) -> torch.autocast:
    # The cache of cast weights must not outlive a step in which they change; autocast clears it on leaving.
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=run.precision == "bf16")


def _line(figures: dict[str, float], prefix: str) -> str:
    return ", ".join(f"{prefix}{name} {value:.4g}" for name, value in figures.items())


class _Metrics:
    """One JSON object a line; on resuming, lines beyond the checkpoint are dropped and the clock goes on."""

    def __init__(self, path: Path, done: int) -> None:
        self._path = path
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        records = [record for record in map(_parsed, lines) if record is not None and record["step"] <= done]
        path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
        self._began = time.time() - (records[-1]["seconds"] if records else 0)

    def write(self, step: int, figures: dict[str, Any]) -> None:
        record = {"step": step, "seconds": round(time.time() - self._began, 1), **figures}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()


def _parsed(line: str) -> dict[str, Any] | None:
    """The record, or None for a line that a killed run left unfinished."""
    try:
        record: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError:
        return None
    return record
