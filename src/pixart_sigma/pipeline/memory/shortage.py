"""Memory or disk running out in the middle: one line that says where, and what to type instead."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pixart_sigma.errors import InvalidInput, OutOfMemory
from pixart_sigma.pipeline.memory.plan import Stage

_CPU_ALLOCATOR = "DefaultCPUAllocator"  # torch's, in the RuntimeError that it raises
REMEDIES: dict[Stage, str] = {
    "text": "--text-encoder streamed",
    "denoise": "a smaller --size, --dtype bfloat16 or fewer --num-images",
    "decode": "--vae-tiling exact",
}


@contextmanager
def explained(stage: Stage) -> Iterator[None]:
    """Within a stage: no memory → OutOfMemory, a full disk → InvalidInput."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not _is_shortage(error):
            raise
        raise OutOfMemory(
            f"the memory did not suffice in stage {stage}; give a lower --memory-limit, so that the plan takes less, "
            f"or {REMEDIES[stage]}"
        ) from error
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise InvalidInput(
            f"the disk was full in stage {stage} ({error.filename or 'temporary files'}); free some space, set TMPDIR "
            "to a folder on another disk, or raise --memory-limit"
        ) from error


def _is_shortage(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or _CPU_ALLOCATOR in str(error)
