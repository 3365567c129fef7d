"""Progress for people: a rich bar on a terminal, plain lines in a log file. Knows nothing of training."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    """Counts steps; `speed` and the time left come from the last stretch of steps, pauses left out."""

    def __init__(self, steps: int, done: int, batch_size: int) -> None:
        self._steps = steps
        self._batch_size = batch_size
        self._console = Console(soft_wrap=True)
        self._bar: Bar | None = None
        if self._console.is_terminal:
            columns = (
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.description}"),
            )
            self._bar = Bar(*columns, console=self._console)
            self._row = self._bar.add_task("", total=steps, completed=done)
        self._start_stretch()

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def advance(self) -> None:
        """One step is done."""
        self._stretch += 1
        if self._bar:
            self._bar.advance(self._row)

    def speed(self) -> float:
        """Images a second since the last log line."""
        seconds = time.perf_counter() - self._since
        return self._stretch * self._batch_size / max(seconds, 1e-9)

    def log(self, step: int, figures: dict[str, float]) -> None:
        """Report figures, speed and time left, and begin a new stretch."""
        speed = self.speed()
        left = (self._steps - step) * self._batch_size / max(speed, 1e-9)
        terms = "  ".join(f"{name} {value:.4f}" for name, value in figures.items())
        text = f"{terms}  {speed:.1f} images/s"
        if self._bar:
            self._bar.update(self._row, description=text)
        else:
            self.say(f"step {step}/{self._steps}  {text}  {_clock(left)} left")
        self._start_stretch()

    def say(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, markup=False, highlight=False)

    def pause(self) -> None:
        """What was done since the last step (validation, a checkpoint) does not count as training time."""
        self._start_stretch()

    def _start_stretch(self) -> None:
        self._stretch = 0
        self._since = time.perf_counter()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def report_stage(name: str, every_seconds: float = 15.0) -> Callable[[int, int], None]:
    """A `report(done, total)` for work before training: a line now and then, and one at the end."""
    console = Console(soft_wrap=True)
    last = time.perf_counter()

    def report(done: int, total: int) -> None:
        nonlocal last
        if done == total or time.perf_counter() - last >= every_seconds:
            last = time.perf_counter()
            console.print(f"{name}: {done:,} of {total:,}", markup=False, highlight=False)

    return report
