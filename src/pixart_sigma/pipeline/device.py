"""Where and in which precision models run, by the names that users give. Knows nothing of models."""

import torch

from pixart_sigma.errors import InvalidInput
from pixart_sigma.pipeline.request import DTYPE_NAMES, check_dtype

_AMPERE = (8, 0)
"""The first NVIDIA GPUs that multiply in bfloat16, as compute capability."""
DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in DTYPE_NAMES}


def resolve_device(device: str) -> torch.device:
    """A torch device by name, or "auto" → the device, tried out. Raises InvalidInput."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=device).item()  # "meta", whose tensors have no content, fails here too
    except torch.OutOfMemoryError:
        raise  # it is there, and full
    except (RuntimeError, AssertionError) as error:
        raise InvalidInput(
            f"device {device!r} is not available here; use --device cpu or auto (in a recipe: run.device)"
        ) from error
    return torch.device(device)


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """A dtype by name, or "auto" → bfloat16 where it is faster, float32 elsewhere. Raises InvalidInput."""
    check_dtype(dtype)
    if dtype == "auto":
        return torch.bfloat16 if _computes_in_bfloat16(device) else torch.float32
    return DTYPES[dtype]


def _computes_in_bfloat16(device: torch.device) -> bool:
    """No on a CPU, where that would change pictures for little; no on NVIDIA's GPUs that only emulate it."""
    if device.type != "cuda" or torch.version.hip is not None:
        return device.type != "cpu"
    return torch.cuda.get_device_capability(device) >= _AMPERE
