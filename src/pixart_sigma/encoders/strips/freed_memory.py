"""Handing freed memory back to the system at once.

glibc keeps freed blocks of up to 32 MiB, and a block with torch's alignment does not fit into the hole that one of its
own size left: without this, a process takes up to twice what its tensors do. The opposite of
`pixart_sigma.allocator`'s setting, which is for speed. Knows nothing of tensors.
"""

import ctypes
import sys
from typing import Any

# Names and numbers of mallopt(3), and its default number of mappings.
_M_MMAP_THRESHOLD = -3
_M_MMAP_MAX = -4
_DEFAULT_MAPPINGS = 65536

_LARGE = 2**20
"""Bytes from which a block gets a mapping of its own, which goes when the block is freed."""


def map_large_blocks() -> None:
    """Ask glibc to map every large block by itself, from now on. Does nothing where there is no glibc."""
    mallopt = _of_glibc("mallopt")
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, _DEFAULT_MAPPINGS)
        mallopt(_M_MMAP_THRESHOLD, _LARGE)


def return_freed_memory() -> None:
    """Gives back the whole pages of freed blocks, wherever they lie. Does nothing where there is no glibc."""
    malloc_trim = _of_glibc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _of_glibc(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
