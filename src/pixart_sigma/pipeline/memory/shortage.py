"""Memory or disk running out in the middle: one line that says where, and what to type instead."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pixart_sigma.errors import InvalidInput, OutOfMemory, WeightsError
from pixart_sigma.pipeline.memory.plan import Stage

_WORDS = (
    "DefaultCPUAllocator",  # torch's own on the CPU
    "Cannot allocate memory",  # the system's, of a file that cannot be mapped
    "out of memory",  # drivers', of pinned memory or a context; the MPS backend's
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "ALLOCATION_FAILED",  # cuDNN's from version 9 on, of the host's or the device's memory
    "std::bad_alloc",
)
"""What a RuntimeError says that is about memory."""
REMEDIES: dict[Stage, str] = {
    "text": "--text-encoder streamed",
    "denoise": "a smaller --size, --dtype bfloat16 or fewer --num-images",
    "decode": "--vae-tiling exact",
}


@contextmanager
def explained(stage: Stage) -> Iterator[None]:
    """Within a stage: no memory → OutOfMemory, a full disk → InvalidInput.

    Also where loading took it for a broken file's fault, and raised WeightsError from it.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError, WeightsError) as error:
        cause = error.__cause__ if isinstance(error, WeightsError) else error
        if is_shortage(cause):
            raise OutOfMemory(
                f"the memory did not suffice in stage {stage}; give a lower --memory-limit, so that the plan takes "
                f"less, or {REMEDIES[stage]}"
            ) from error
        if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
            raise InvalidInput(
                f"the disk was full in stage {stage} ({cause.filename or 'temporary files'}); free some space, set "
                "TMPDIR to a folder on another disk, or raise --memory-limit"
            ) from error
        raise


def is_shortage(error: BaseException | None) -> bool:
    """Whether it says that there is no memory left, in the words of torch, a driver or the system."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)
