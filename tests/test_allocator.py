import json
import subprocess
import sys
import time

import pytest

from pixart_sigma import allocator

# In a process of its own: the settings hold for the whole of it.
SCRIPT = """
import json
from pathlib import Path
from pixart_sigma.allocator import keep_freed_memory, return_freed_memory, returning_freed_memory, trim

MIB = 2**20

def anonymous():
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))

def kept():
    "MiB that 32 blocks of 4 MiB leave behind."
    before = anonymous()
    blocks = [bytearray(b"x" * (4 * MIB)) for _ in range(32)]
    del blocks
    return (anonymous() - before) // MIB

found = {"default": kept()}
keep_freed_memory()
found["keep"] = kept()
before = anonymous()
trim()
found["trimmed"] = (before - anonymous()) // MIB
kept()
with returning_freed_memory():
    with returning_freed_memory():
        pass
    found["returning"] = kept()
found["keep again"] = kept()
return_freed_memory()
found["return"] = kept()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def kept() -> dict[str, int]:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def test_freed_blocks_are_kept_or_returned(kept: dict[str, int]) -> None:
    assert kept["keep"] >= 120
    assert kept["return"] <= 8


def test_a_trim_gives_back_what_was_kept(kept: dict[str, int]) -> None:
    assert kept["trimmed"] >= 120


def test_the_former_mode_is_restored(kept: dict[str, int]) -> None:
    assert kept["returning"] <= 8
    assert kept["keep again"] >= 120


def test_trims_are_half_a_minute_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    trims = []
    now = time.monotonic()
    monkeypatch.setattr(allocator, "_trimmed", now)
    monkeypatch.setattr(allocator, "_of_glibc", lambda name: trims.append)
    for seconds in range(0, 100, 5):
        monkeypatch.setattr(time, "monotonic", lambda seconds=seconds: now + seconds)
        allocator.trim_now_and_then()
    assert len(trims) == 3


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(allocator, "_mode", "default")
    allocator.keep_freed_memory()
    with allocator.returning_freed_memory():
        allocator.trim()
