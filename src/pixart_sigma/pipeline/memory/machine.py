"""What memory is free on a device, and what this process takes of it already. Knows nothing of models.

On the CPU what counts is anonymous memory (RssAnon): pages of mapped files can be given back at any time. On a GPU it
is what torch has allocated; its context, of some hundred MiB, is not counted, and `free_bytes` leaves room for it.
"""

from pathlib import Path

import psutil  # type: ignore[import-untyped]
import torch

from pixart_sigma.pipeline.memory.limit import MIB

_MARGIN = 0.1
"""Of what is free: for other processes, and for what the allocator cannot use."""
_GPU_CONTEXT_BYTES = 512 * MIB


def free_bytes(device: torch.device) -> int:
    """The limit that `auto` stands for: what this process has and what it may still take, less a margin."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        started = torch.cuda.memory_reserved(device) > 0
        free += torch.cuda.memory_reserved(device) - (0 if started else _GPU_CONTEXT_BYTES)
        return max(0, int(free * (1 - _MARGIN)))
    return own_bytes(device) + int(psutil.virtual_memory().available * (1 - _MARGIN))


def own_bytes(device: torch.device) -> int:
    """What this process takes now."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    try:
        lines = Path("/proc/self/status").read_text("ascii", "replace").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))
    except (OSError, StopIteration):  # no Linux
        return int(psutil.Process().memory_info().rss)
