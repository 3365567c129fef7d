"""All that a run tells, in one place: progress on the terminal, metrics.jsonl, trackers, and the report at the end.

Every process has one; the first alone speaks and writes. Knows nothing of how the figures came about.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from torch import nn

from pixart_sigma.pipeline.placement.processes import Processes
from pixart_sigma.training.recipe import Recipe
from pixart_sigma.training.watching.gallery import step_pictures
from pixart_sigma.training.watching.machine import write_machine
from pixart_sigma.training.watching.metrics import Metrics, read_metrics
from pixart_sigma.training.watching.progress import Progress
from pixart_sigma.training.watching.report import write_report
from pixart_sigma.training.watching.trackers import open_trackers

_SHOWN_IDS = 16


class RunRecord:
    """`with RunRecord(…) as record:` around a run's steps, which are counted from 1 here."""

    def __init__(
        self, output: Path, recipe: Recipe, done: int, model: nn.Module, processes: Processes
    ) -> None:
        run, quiet = recipe.run, not processes.first
        if processes.first:
            output.mkdir(parents=True, exist_ok=True)
            write_machine(output / "machine.json", processes.world)
        self._output = output
        self._recipe = recipe
        self._first = processes.first
        self._metrics = Metrics(output / "metrics.jsonl", done, quiet)
        self._progress = Progress(run.steps, done, run.batch_size, processes.device, quiet)
        configuration = recipe.model_dump(mode="json", exclude_none=True)
        names = run.trackers if processes.first else ()
        self._trackers = open_trackers(names, output, output.resolve().name, configuration, done)
        self._sums: dict[str, float] = {}
        self._num_summed = 0
        num_trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
        where = (
            f"{processes.world} processes on {processes.device.type}"
            if processes.world > 1
            else processes.device
        )
        self.say(f"{recipe.kind}: {num_trained:,} weights to train, steps {done:,} to {run.steps:,}, {where}")

    def __enter__(self) -> Self:
        self._progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.__exit__(kind, error, trace)
        self._trackers.close()

    def say(self, text: str) -> None:
        """A line on the terminal."""
        self._progress.say(text)

    def step(self, finished: int, terms: dict[str, float], rate: float) -> None:
        """The terms of a step's loss, none if it was skipped, and the rate's factor; means are written now and then."""
        run = self._recipe.run
        self._progress.advance()
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._num_summed += bool(terms)
        if finished % run.log_every and finished != run.steps:
            return
        means = {name: value / self._num_summed for name, value in self._sums.items()}
        self._sums, self._num_summed = {}, 0
        figures = means | {
            "learning_rate": rate * self._recipe.optimizer.learning_rate,
            "samples_per_second": self._progress.speed(),
        }
        self._metrics.write(finished, figures)
        self._trackers.scalars(finished, figures)
        self._progress.log(finished, means)

    def skipped(self, finished: int, loss: float, records: list[str]) -> None:
        """A step whose loss or gradient was not finite."""
        more = f" and {len(records) - _SHOWN_IDS} more" if len(records) > _SHOWN_IDS else ""
        shown = ", ".join(records[:_SHOWN_IDS]) + more
        self.say(
            f"step {finished}: skipped, its loss ({loss:.4g}) or gradient was not finite; records: {shown}"
        )
        self._metrics.event(finished, "skipped step", f"loss {loss:.4g}; records: {', '.join(records)}")

    def validated(self, finished: int) -> bool:
        """Whether the figures after so many steps are there already, from before the run was resumed."""
        path = self._output / "metrics.jsonl"
        records = read_metrics(path) if path.exists() else []
        return any(record["step"] == finished and "validation_seconds" in record for record in records)

    def validation_figures(self, finished: int) -> dict[str, float]:
        """What the validation after so many steps found, also before the run was resumed."""
        prefix = "validation_"
        records = [
            record for record in read_metrics(self._output / "metrics.jsonl") if record["step"] == finished
        ]
        found = {
            name: value for record in records for name, value in record.items() if name.startswith(prefix)
        }
        return {
            name.removeprefix(prefix): value
            for name, value in found.items()
            if value is not None and name != "validation_seconds"
        }

    def validation(self, finished: int, figures: dict[str, float]) -> None:
        """Held-out figures; the pictures are in `samples` already."""
        named = {f"validation_{name}": value for name, value in figures.items()}
        self._metrics.write(finished, named)
        self._trackers.scalars(finished, named)
        if self._first:
            self._trackers.images(finished, step_pictures(self._output, finished))
        self.say(f"step {finished}: " + _line(figures, "validation "))

    def pause(self) -> None:
        """What was done since the last step is not training time."""
        self._progress.pause()

    def closing(self, finished: int, figures: dict[str, float]) -> None:
        """What was exported; writes the report."""
        self._metrics.write(finished, {f"export_{name}": value for name, value in figures.items()})
        if self._first:
            report = write_report(self._output)
            self.say(f"exported to {self._output / 'export'}: {_line(figures, '')}; report: {report}")


def _line(figures: dict[str, float], prefix: str) -> str:
    return ", ".join(f"{prefix}{name} {value:.4g}" for name, value in figures.items())
