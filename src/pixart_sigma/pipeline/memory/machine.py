"""What memory is free on a device, and what this process takes of it already. Knows nothing of models.

On the CPU what counts is anonymous memory (RssAnon): pages of mapped files can be given back at any time. On a GPU it
is what torch has allocated; its context, of some hundred MiB, is not counted, and `free_bytes` leaves room for it.
"""

from pathlib import Path

import psutil  # type: ignore[import-untyped]
import torch

from pixart_sigma.pipeline.memory.container import left_in_container
from pixart_sigma.pipeline.memory.limit import MIB

ANONYMOUS = "RssAnon"
"""Of a process's status: what it has in memory that is not of files."""
RESIDENT = "VmRSS"
"""All that it has in memory, pages of files too."""

_MARGIN = 0.1
"""Of what is free: for other processes, and for what the allocator cannot use."""
_GPU_CONTEXT_BYTES = 512 * MIB


def free_bytes(device: torch.device) -> int:
    """The limit that `auto` stands for: what this process has and what it may still take, less a margin.

    On the CPU the machine and the container that the process may be in both bound that.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        started = torch.cuda.memory_reserved(device) > 0
        free += torch.cuda.memory_reserved(device) - (0 if started else _GPU_CONTEXT_BYTES)
        return max(0, int(free * (1 - _MARGIN)))
    free = int(psutil.virtual_memory().available)
    contained = left_in_container()
    free = free if contained is None else min(free, contained)
    return own_bytes(device) + int(free * (1 - _MARGIN))


def own_bytes(device: torch.device) -> int:
    """What this process takes now."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    anonymous = status_bytes("self").get(ANONYMOUS)
    return int(psutil.Process().memory_info().rss) if anonymous is None else anonymous  # no Linux


def status_bytes(pid: int | str) -> dict[str, int]:
    """The sizes in a process's /proc/PID/status, in bytes by name, from one look; empty where there is none."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text("ascii", "replace").splitlines()
    except OSError:
        return {}
    fields = [line.split() for line in lines if line.endswith(" kB")]
    return {name.rstrip(":"): int(number) * 1024 for name, number, _ in fields}
