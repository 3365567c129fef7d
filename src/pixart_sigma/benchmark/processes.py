"""The other end of `worker.py`: starts the processes of all rows, lets them step in turns, watches their memory."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pixart_sigma.benchmark.switches import Switches
from pixart_sigma.errors import MissingDependency, PixArtSigmaError

_SAMPLING_SECONDS = 0.005


@dataclass
class Worker:
    """A process and what it told. `memory`: bytes at the peak of a step, beyond what imports took; None if unknown."""

    name: str
    process: subprocess.Popen[str]
    log: Path
    memory: int | None = None
    warm_up_seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    _idle: int | None = None

    def imported(self) -> None:
        """Wait for the process to have imported what it needs; its memory from here on is the step's."""
        self._idle = self._read()["idle_memory"]

    def warmed_up(self) -> None:
        """Wait for the first steps."""
        answer = self._watched_read()
        self.warm_up_seconds, self.losses = answer["warm_up_seconds"], answer["losses"]

    def take(self, num_steps: int) -> None:
        """Have it take some steps and wait for them."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{num_steps}\n")
        self.process.stdin.flush()
        answer = self._watched_read()
        self.seconds += answer["seconds"]
        if answer["memory"] is not None:  # a GPU's own count
            self.memory = answer["memory"]

    def _watched_read(self) -> dict[str, Any]:
        done = threading.Event()

        def watch() -> None:
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
        now = anonymous_memory(self.process.pid)
        if now is not None and self._idle is not None:
            self.memory = max(self.memory or 0, now - self._idle)

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            last = (self.log.read_text("utf-8", "replace").strip() or "no output").splitlines()[-1]
            raise PixArtSigmaError(f"the process of {self.name!r} ended: {last}; see {self.log}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise MissingDependency(answer["error"])
        return answer


@contextlib.contextmanager
def started(
    scenario: str, rows: dict[str, tuple[str, Switches]], device: str, folder: Path
) -> Iterator[list[Worker]]:
    """A warm worker for each row, a name → (side "ours" or "plain", switches); all end with the block.

    They are built one after the other, so that no two compute at a time. Logs go to `folder`.
    """
    workers: list[Worker] = []
    try:
        for number, (name, (side, switches)) in enumerate(rows.items()):
            task = {"scenario": scenario, "side": side, "device": device, "switches": asdict(switches)}
            log = folder / f"{scenario}-{number}.log"
            with log.open("w", encoding="utf-8") as errors:
                process = subprocess.Popen(
                    [sys.executable, "-m", "pixart_sigma.benchmark.worker", json.dumps(task)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                )
            worker = Worker(name, process, log)
            workers.append(worker)
            worker.imported()
            worker.warmed_up()
        yield workers
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.communicate()


def anonymous_memory(pid: int) -> int | None:
    """Bytes of a process that are not of files (RssAnon); None where the kernel does not tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_text("ascii", "replace")
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return None
