"""What holds for every test: no network, one torch thread per process, the same random numbers every time.

The environment is set before torch or a Hugging Face library is imported; both read it on import.
"""

import os
import socket
import sys
from typing import Any

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # With two test processes on two cores, more threads only get in each other's way.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}

import pytest
from hypothesis import settings

# The same examples every time, and no deadline: the first call of a torch function may take seconds.
settings.register_profile("deterministic", derandomize=True, deadline=None)
settings.load_profile("deterministic")


LOOPBACK = ("127.0.0.1", "::1", "localhost")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test that reaches for the network fail at once, on every machine."""
    connect = socket.socket.connect

    def connect_locally(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in LOOPBACK:
            raise AssertionError(f"a test tried to connect to {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_locally)


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """Start every test from the same torch seed, so that none depends on those that ran before it."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
