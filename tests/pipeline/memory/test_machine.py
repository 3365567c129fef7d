import os
import sys
from types import SimpleNamespace

import pytest
import torch

from pixart_sigma.pipeline.memory import machine
from pixart_sigma.pipeline.memory.machine import ANONYMOUS, RESIDENT, free_bytes, own_bytes, status_bytes

CPU = torch.device("cpu")


@pytest.mark.parametrize(("contained", "free"), [(None, 1000), (400, 400), (4000, 1000)])
def test_the_machine_and_the_container_both_bound_what_is_free(
    contained: int | None, free: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine.psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    monkeypatch.setattr(machine, "left_in_container", lambda: contained)
    monkeypatch.setattr(machine, "own_bytes", lambda device: 7)
    assert free_bytes(CPU) == 7 + free * 9 // 10


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's counters")
def test_anonymous_memory_is_what_tensors_take() -> None:
    before = own_bytes(CPU)
    tensor = torch.ones(2**24)
    assert own_bytes(CPU) - before == pytest.approx(tensor.nbytes, rel=0.1)
    status = status_bytes(os.getpid())
    assert tensor.nbytes < status[ANONYMOUS] < status[RESIDENT]
    assert status_bytes(2**30) == {}
