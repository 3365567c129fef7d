from pathlib import Path

import pytest

from pixart_sigma.benchmark.processes import Task, Worker, anonymous_memory, started, take_turns
from pixart_sigma.errors import PixArtSigmaError


def test_a_process_that_dies_is_one_line(tmp_path: Path) -> None:
    task = Task("broken", "pixart_sigma.benchmark.nowhere", {})
    with (
        pytest.raises(PixArtSigmaError, match=r"the process of 'broken' ended: .*No module named"),
        started([task], tmp_path),
    ):
        pass


def test_workers_run_there_and_back() -> None:
    order: list[str] = []

    class Noting(Worker):
        def take(self, num_runs: int) -> None:
            order.append(self.name * num_runs)

    workers = [Noting(name, None, Path()) for name in "AB"]  # type: ignore[arg-type]
    take_turns(workers, 3)
    assert "".join(order) == "ABBAAB"


def test_memory_of_no_process_is_unknown() -> None:
    assert anonymous_memory(2**30) is None
