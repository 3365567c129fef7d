"""The work of a benchmark's processes, in this one."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType

from pixart_sigma.benchmark.processes import Task, Worker


class HereWorker(Worker):
    """A process that is none."""

    def take(self, num_runs: int) -> None:
        self.runs += [self.run() for _ in range(num_runs)]


def starting_here(
    module: ModuleType,
) -> Callable[[Sequence[Task], Path], AbstractContextManager[list[Worker]]]:
    """A worker's module → what stands in for `processes.started`."""

    @contextlib.contextmanager
    def started(tasks: Sequence[Task], folder: Path) -> Iterator[list[Worker]]:
        workers: list[Worker] = []
        for task in tasks:
            one = HereWorker(task.name, None, folder)  # type: ignore[arg-type]
            one.ready, one.run = module._build(task.arguments)
            workers.append(one)
        yield workers

    return started
