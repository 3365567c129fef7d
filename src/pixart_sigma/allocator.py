"""What the C allocator does with freed blocks: keep them, for speed, or return them to the system, to save memory.

Settings hold for the whole process. Knows nothing of tensors, and does nothing where there is no glibc.

| mode | blocks of a MiB and more | a process then takes |
|---|---|---|
| keep | are cut from the heap, which never shrinks | up to twice what its tensors do, and more as shapes vary |
| return | are mapped one by one, and unmapped when freed | what its tensors do |
| default | up to 32 MiB from the heap, larger ones mapped | in between |

By default every tensor of some megabytes is mapped, zeroed page by page and unmapped again, which can take as long as
the arithmetic (docs/log.md has figures): hence keep. But a block of the heap with torch's alignment does not fit into
the hole that one of its own size left, and small blocks that live on, such as oneDNN's cached kernels, keep holes
apart. So holes stay: hence return, where memory counts, and `trim_now_and_then` for a training whose shapes vary.
"""

import ctypes
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

Mode = Literal["default", "keep", "return"]

MIB = 2**20

# Names and numbers of mallopt(3).
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_MMAP_MAX = -4

_MAPPINGS = 65536
"""glibc's own limit on their number."""

_SETTINGS: dict[Mode, dict[int, int]] = {
    # What glibc's moving thresholds come to once blocks of 32 MiB were freed; they cannot be set moving again.
    "default": {_M_MMAP_MAX: _MAPPINGS, _M_MMAP_THRESHOLD: 32 * MIB, _M_TRIM_THRESHOLD: 64 * MIB},
    "keep": {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: -1},
    "return": {_M_MMAP_MAX: _MAPPINGS, _M_MMAP_THRESHOLD: MIB, _M_TRIM_THRESHOLD: MIB},
}

TRIM_SECONDS = 30
"""Between two trims: what was given back and is needed again costs a page fault for every 4 KiB."""

_mode: Mode = "default"
_trimmed = time.monotonic()


def keep_freed_memory() -> None:
    """From now on freed blocks are kept for what comes next, until they are trimmed."""
    _set("keep")


def return_freed_memory() -> None:
    """From now on large freed blocks go back to the system, and so does at once what was kept so far."""
    _set("return")
    trim()


@contextmanager
def returning_freed_memory() -> Iterator[None]:
    """As `return_freed_memory` while it lasts; then as before."""
    former = _mode
    return_freed_memory()
    try:
        yield
    finally:
        _set(former)


def trim() -> None:
    """Gives back the whole pages of freed blocks, wherever they lie, in any mode."""
    global _trimmed
    malloc_trim = _of_glibc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)
    _trimmed = time.monotonic()


def trim_now_and_then() -> None:
    """Trims if that was last done half a minute ago; for loops that keep freed memory and whose shapes vary."""
    if time.monotonic() - _trimmed >= TRIM_SECONDS:
        trim()


def _set(mode: Mode) -> None:
    global _mode
    mallopt = _of_glibc("mallopt")
    if mallopt is not None and mode != _mode:
        for setting, value in _SETTINGS[mode].items():
            mallopt(setting, value)
    _mode = mode


def _of_glibc(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
