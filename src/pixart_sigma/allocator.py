"""One setting of the C allocator that large, short-lived tensors on the CPU need.

Knows nothing of tensors.
"""

import ctypes
import sys

# Names and numbers of mallopt(3).
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def keep_freed_memory() -> None:
    """Ask glibc to keep freed blocks instead of handing them back to the kernel.

    By default every tensor of some megabytes is mapped, zeroed page by page and unmapped again, which can take as
    long as the arithmetic (docs/log.md has figures). Does nothing where there is no glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
