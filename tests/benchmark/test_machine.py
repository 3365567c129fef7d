import time
from importlib.metadata import version

import pytest
import torch

from pixart_sigma.benchmark import machine

CPU = torch.device("cpu")


def test_a_machine_is_described_by_what_its_products_depend_on() -> None:
    assert machine.describe_machine(CPU).startswith(f"{torch.get_num_threads()} threads, ")
    assert machine.library_versions()["torch"] == version("torch")
    assert machine.memory_bytes(CPU) > 2**28


def test_the_matrix_rate_is_operations_over_median_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 9.0, 0.0, 2.0, 0.0, 2.0, 0.0, 2.0, 0.0, 1.0, 0.0, 50.0])  # the first one warms up
    monkeypatch.setattr(machine, "_CPU_SIDE", 8)
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    assert machine.matrix_rate(CPU, torch.bfloat16) == 2 * 8**3 / 2.0
