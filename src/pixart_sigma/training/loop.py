"""The one training loop: batches, accumulation, optimisers, moving average, checkpoints, validation, metrics.

A task says what is trained, what a step's loss is, how to validate and what to export. The loop does not know what
the task computes, and holds no random state: a task keys its draws by the step. Every process runs it alike; the
first one alone writes files other than checkpoints.
"""

from __future__ import annotations

import math
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pixart_sigma.allocator import trim_now_and_then
from pixart_sigma.errors import PixArtSigmaError, RecipeError, Stopped
from pixart_sigma.pipeline.placement.processes import Processes
from pixart_sigma.training.checkpoint import Checkpoints, TrainingState
from pixart_sigma.training.optimizers import MovingAverage, build_optimizers, rate_factor, set_rate
from pixart_sigma.training.parallel import parallelise
from pixart_sigma.training.precision import autocast
from pixart_sigma.training.prefetch import prefetched
from pixart_sigma.training.recipe import Recipe, dump_recipe
from pixart_sigma.training.recipe.process import microbatch
from pixart_sigma.training.signals import StopSignal, exit_status
from pixart_sigma.training.watching.record import RunRecord


class Task(Protocol):
    """What the loop asks of whatever is trained."""

    @property
    def model(self) -> nn.Module:
        """forward(batch) → scalars, of which "loss" is minimised; weights that require a gradient are trained."""

    @property
    def methods(self) -> tuple[str, ...]:
        """The model's methods beside `forward` that validation computes with."""

    @property
    def data_digest(self) -> str:
        """Changes with what is trained on; a resumed run goes on with the same."""

    @property
    def exports_average(self) -> bool:
        """Whether the moving average is exported, and not the last weights."""

    def notes(self) -> list[str]:
        """Lines about what was prepared, for the log."""

    def blocks(self) -> list[nn.Module]:
        """The units of sharding, activation checkpointing and compilation; none if nothing is worth it."""

    def load(self, step: int, part: range) -> Any:
        """What `batch` needs of the samples at the positions `part` of the global batch of `step`.

        Runs in a thread beside the training; a pure function.
        """

    def batch(self, loaded: Any, share: float) -> Any:
        """What the model's forward takes; the loss is the samples' sum times `share`. Runs under autocast."""

    def record_ids(self, step: int, part: range) -> list[str]:
        """What the samples are called, for a log of steps that went wrong."""

    def validate(self, step: int, folder: Path | None) -> dict[str, float]:
        """Held-out figures of the averaged weights; pictures go to `folder`, if given. Runs under autocast."""

    def export(
        self, folder: Path, weights: dict[str, Tensor], held_out: dict[str, float]
    ) -> dict[str, float]:
        """Write `weights` (the model's, whole, on the CPU) for those who use them; return closing figures.

        held_out: what the last validation found.
        """


@dataclass(frozen=True)
class Outcome:
    """What a step came to, the same on every process."""

    terms: dict[str, float]
    gradient_norm: float
    signal: int

    @property
    def finite(self) -> bool:
        return math.isfinite(self.terms["loss"]) and math.isfinite(self.gradient_norm)


def run_loop(
    task: Task, recipe: Recipe, output: Path, processes: Processes, allow_changed: bool = False
) -> dict[str, float]:
    """Train `task` for recipe.run.steps steps, then export to `output/export`. Returns the closing figures.

    The newest checkpoint under `output/checkpoints`, if there is one, is continued. Raises Stopped after a signal,
    with a complete checkpoint; PixArtSigmaError after too many steps whose loss or gradient was not finite; RecipeError
    if the data are not those of the checkpoint, unless `allow_changed`.
    """
    run = recipe.run
    # Dropout would draw from the global generator, which no key and no checkpoint holds; nothing here wants it.
    task.model.eval()
    parallel = parallelise(task.model, task.blocks(), recipe.parallel, run, processes, task.methods)
    optimizers = build_optimizers(task.model, recipe.optimizer)
    average = MovingAverage(task.model, run.ema_decay)
    state = TrainingState(task.model, average, optimizers)
    checkpoints = Checkpoints(output / "checkpoints", processes, run.keep_last, run.keep_every)
    done, skipped = 0, 0
    if newest := checkpoints.newest():
        loaded = checkpoints.load(newest, state)
        done, skipped = loaded["step"], loaded["skipped"]
        if loaded["data"] != task.data_digest and not allow_changed:
            raise RecipeError(
                f"the data are not those of the checkpoint {newest.name}: pictures, captions or encoders were changed; "
                "put them back, or add --allow-changed"
            )
    if done > run.steps:
        raise RecipeError(
            f"the checkpoint of step {done} is beyond run.steps {run.steps}; raise it, or choose another output"
        )
    micro = microbatch(run, processes.world)
    parts = _parts(micro, run.accumulate, processes.rank)
    keys = ((step, part) for step in range(done, run.steps) for part in parts)

    notes = {"data": task.data_digest}

    def save(finished: int, wait: bool = False) -> None:
        checkpoints.save(finished, state, notes | {"step": finished, "skipped": skipped}, dump_recipe(recipe))
        if wait:
            checkpoints.wait()

    def validate(finished: int) -> None:
        folder = output / "samples" if processes.first else None
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
        began = time.perf_counter()
        average.swap()
        with torch.no_grad(), autocast(run, processes.device):
            figures = task.validate(finished, folder)
        average.swap()
        record.validation(finished, figures | {"seconds": time.perf_counter() - began})

    with (
        ExitStack() as stack,
        checkpoints,
        StopSignal() as stop,
        RunRecord(output, recipe, done, task.model, processes) as record,
    ):
        for note in task.notes():
            record.say(note)
        due = done > 0 and (done % run.validate_every == 0 or done == run.steps)
        if due and not processes.gathered(record.validated(done))[0]:
            validate(done)
        batches = stack.enter_context(closing(prefetched(lambda key: task.load(*key), keys)))
        for step in range(done, run.steps):
            finished = step + 1
            factor = rate_factor(step, recipe.rate, run.steps, run.batch_size)
            set_rate(optimizers, factor)
            sums: dict[str, Tensor] = {}
            for index in range(run.accumulate):
                with parallel.gradients_summed(last=index == run.accumulate - 1):
                    with autocast(run, processes.device):
                        batch = task.batch(next(batches), processes.world / run.batch_size)
                        terms = parallel.model(batch)
                    terms["loss"].backward()
                for name, value in terms.items():
                    sums[name] = sums.get(name, 0) + value.detach()
            outcome = _outcome(sums, parallel.clip(run.gradient_clip), stop.number, processes)
            if outcome.finite:
                for optimizer in optimizers:
                    optimizer.step()
                average.update(step)
            for optimizer in optimizers:
                optimizer.zero_grad(set_to_none=True)
            if not outcome.finite:
                skipped += 1
                record.skipped(finished, outcome.terms["loss"], task.record_ids(step, range(run.batch_size)))
                if skipped > run.max_skipped_steps:
                    raise PixArtSigmaError(
                        f"{skipped} steps had a loss or gradient that was not finite, the last one {finished}; more "
                        f"than run.max_skipped_steps allows: look at the records in {output / 'metrics.jsonl'}, or "
                        "resume with a lower optimizer.learning_rate, a higher limit and --allow-changed"
                    )
            terms = outcome.terms | {"gradient_norm": outcome.gradient_norm}
            record.step(finished, terms if outcome.finite else {}, factor)
            checkpoints.poll()
            trim_now_and_then()
            if outcome.signal:
                save(finished, wait=True)
                raise Stopped(
                    f"stopped by signal {outcome.signal} after step {finished}; its checkpoint is complete, go on "
                    "with --resume",
                    exit_status(outcome.signal),
                )
            validating = finished % run.validate_every == 0 or finished == run.steps
            # Before a validation too: should it outlast the patience of whoever stops the run, nothing is lost.
            if finished % run.checkpoint_every == 0 or validating:
                save(finished)
                record.pause()
            if validating:
                validate(finished)
                record.pause()
        checkpoints.wait()
        if task.exports_average:
            average.swap()
        weights = parallel.whole_weights()
        if task.exports_average:
            average.swap()
        figures = {}
        if processes.first:
            figures = task.export(output / "export", weights, record.validation_figures(run.steps))
        record.closing(run.steps, figures)
    return figures


def _parts(micro: int, accumulate: int, rank: int) -> list[range]:
    """The positions of the global batch in each of a process's micro-batches."""
    first = rank * micro * accumulate
    return [range(first + index * micro, first + (index + 1) * micro) for index in range(accumulate)]


def _outcome(sums: dict[str, Tensor], norm: Tensor, signal: int, processes: Processes) -> Outcome:
    """One collective a step: the processes agree on the loss, on whether it is finite, and on stopping."""
    local = [float(value) / processes.world for value in sums.values()]
    *totals, numbers, count = processes.summed([*local, float(signal), float(signal > 0)])
    return Outcome(
        terms=dict(zip(sums, totals, strict=True)),
        gradient_norm=float(norm),
        # Those that were signalled had the same signal.
        signal=round(numbers / count) if count else 0,
    )
