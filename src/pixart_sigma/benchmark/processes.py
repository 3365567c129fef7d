"""The other end of `serving.py`: starts the processes of all rows, lets them run in turns, watches their memory."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pixart_sigma.errors import MissingDependency, PixArtSigmaError
from pixart_sigma.pipeline.memory.machine import ANONYMOUS, RESIDENT, status_bytes

_SAMPLING_SECONDS = 0.005


@dataclass(frozen=True)
class Task:
    """A row's name, the module that its process runs, and what the module is told."""

    name: str
    module: str
    arguments: dict[str, Any]


@dataclass
class Worker:
    """A process and what it told.

    `memory`: bytes at the peak, beyond what imports took, which is `idle`; None if unknown. `resident`: the same peak
    with pages of files, imports included. `ready`: what it said when it was warm. `runs`: the seconds of each timed
    run, by stage, with "total" for the whole.
    """

    name: str
    process: subprocess.Popen[str]
    log: Path
    memory: int | None = None
    resident: int | None = None
    idle: int | None = None
    ready: dict[str, Any] = field(default_factory=dict)
    runs: list[dict[str, float]] = field(default_factory=list)

    @property
    def seconds(self) -> list[float]:
        """Of each timed run, as a whole."""
        return [run["total"] for run in self.runs]

    def imported(self) -> None:
        """Wait for the process to have imported what it needs; its memory from here on is the work's."""
        self.idle = self._read()["idle_memory"]

    def warmed_up(self) -> None:
        """Wait for everything that is not timed."""
        self.ready = self._watched_read()

    def take(self, num_runs: int) -> None:
        """Have it run some times and wait for it."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(f"{num_runs}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended; reading says how
        answer = self._watched_read()
        self.runs += answer["runs"]
        if answer["memory"] is not None:  # a GPU's own count
            self.memory = answer["memory"]

    def _watched_read(self) -> dict[str, Any]:
        done = threading.Event()

        def watch() -> None:
            self._look()  # also at what is done sooner than the first wait
            while not done.wait(_SAMPLING_SECONDS):
                self._look()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            return self._read()
        finally:
            done.set()
            watcher.join()

    def _look(self) -> None:
        status = status_bytes(self.process.pid)
        now, resident = status.get(ANONYMOUS), status.get(RESIDENT)
        if now is not None and self.idle is not None:
            self.memory = max(self.memory or 0, now - self.idle)
        if resident is not None:
            self.resident = max(self.resident or 0, resident)

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            last = (self.log.read_text("utf-8", "replace").strip() or "no output").splitlines()[-1]
            killed = " (killed: by the kernel, if memory ran out)" if status == -9 else ""
            raise PixArtSigmaError(f"the process of {self.name!r} ended{killed}: {last}")
        answer: dict[str, Any] = json.loads(line)
        if "missing" in answer:
            raise MissingDependency(answer["missing"])
        if "error" in answer:
            raise PixArtSigmaError(f"{self.name}: {answer['error']}")
        return answer


@contextlib.contextmanager
def started(tasks: Sequence[Task], folder: Path) -> Iterator[list[Worker]]:
    """A warm worker for each task; all end with the block. Logs go to `folder`.

    They are built one after the other, so that no two compute at a time. Raises MissingDependency for what a process
    lacks, PixArtSigmaError if one ends early.
    """
    workers: list[Worker] = []
    try:
        for number, task in enumerate(tasks):
            log = folder / f"{number}.log"
            with log.open("w", encoding="utf-8") as errors:
                process = subprocess.Popen(
                    [sys.executable, "-m", task.module, json.dumps(task.arguments)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                )
            worker = Worker(task.name, process, log)
            workers.append(worker)
            worker.imported()
            worker.warmed_up()
        yield workers
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.communicate()


def take_turns(workers: Sequence[Worker], rounds: int, before: Callable[[], object] = lambda: None) -> None:
    """A run of each worker a round: there and back, so that none always follows the same other one.

    before: what is done before each round, while they wait.
    """
    for number in range(rounds):
        before()
        for worker in workers if number % 2 == 0 else reversed(workers):
            worker.take(1)


def anonymous_memory(pid: int) -> int | None:
    """Bytes of a process that are not of files (RssAnon); None where the kernel does not tell."""
    return status_bytes(pid).get(ANONYMOUS)
