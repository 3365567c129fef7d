"""Progress for people: a rich bar on a terminal, plain lines in a log file. Knows nothing of training."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from pixart_sigma.training.watching.machine import GIB, memory_in_use


class Progress:
    """Counts steps; `speed` and the time left come from the last stretch of steps, pauses left out.

    A `quiet` one, of any rank but the first, shows nothing but measures the same.
    """

    def __init__(
        self, steps: int, done: int, batch_size: int, device: torch.device | None = None, quiet: bool = False
    ) -> None:
        """`batch_size`: samples a step, of all ranks together. `device`: whose memory is shown; None: the CPU."""
        self._steps = steps
        self._done = done
        self._batch_size = batch_size
        self._device = device or torch.device("cpu")
        self._console = Console(soft_wrap=True, quiet=quiet)
        self._speed = 0.0
        self._bar: Bar | None = None
        if self._console.is_terminal and not quiet:
            columns = (
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TextColumn("{task.fields[left]}", style="cyan"),
                TextColumn("{task.description}", markup=False),
            )
            self._bar = Bar(*columns, console=self._console)
            self._row = self._bar.add_task("", total=steps, completed=done, left="")
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
        self._done += 1
        if self._bar:
            self._bar.update(self._row, advance=1, left=self._left())

    def speed(self) -> float:
        """Samples a second since the last log line or pause; before the first step after one, the last one logged."""
        if not self._stretch:
            return self._speed
        return self._stretch * self._batch_size / max(time.perf_counter() - self._since, 1e-9)

    def log(self, step: int, figures: dict[str, float]) -> None:
        """Report figures, speed, memory and time left, and begin a new stretch.

        On a GPU the figures must have been read from it before, or steps that still run count as done.
        """
        self._done = step
        self._speed = self.speed()
        terms = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        memory = memory_in_use(self._device) / GIB
        text = f"{terms}  {self._speed:.1f} samples/s  {memory:.1f} GiB"
        if self._bar:
            self._bar.update(self._row, completed=step, description=text, left=self._left())
        else:
            self.say(f"step {step:,}/{self._steps:,}  {text}  {self._left()}")
        self._start_stretch()

    def say(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, markup=False, highlight=False)

    def pause(self) -> None:
        """What was done since the last step (validation, a checkpoint) does not count as training time.

        The steps before it in this stretch do not either: on a GPU they may have ended within the pause.
        """
        self._start_stretch()

    def _start_stretch(self) -> None:
        self._stretch = 0
        self._since = time.perf_counter()

    def _left(self) -> str:
        # Between log lines a GPU's steps end unseen, so the speed of the last whole stretch is the better one.
        speed = self._speed or self.speed()
        return f"{_clock((self._steps - self._done) * self._batch_size / speed)} left" if speed else ""


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def report_stage(name: str, every_seconds: float = 15.0, quiet: bool = False) -> Callable[[int, int], None]:
    """A `report(done, total)` for work before training: a line now and then, and one at the end."""
    console = Console(soft_wrap=True, quiet=quiet)
    last = time.perf_counter()

    def report(done: int, total: int) -> None:
        nonlocal last
        if done == total or time.perf_counter() - last >= every_seconds:
            last = time.perf_counter()
            console.print(f"{name}: {done:,} of {total:,}", markup=False, highlight=False)

    return report
