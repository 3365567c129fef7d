"""Where and in which precision models run, by the names that users give. Knows nothing of models."""

import torch

from pixart_sigma.errors import InvalidInput
from pixart_sigma.pipeline.request import DTYPE_NAMES, check_dtype

DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in DTYPE_NAMES}


def resolve_device(device: str) -> torch.device:
    """A torch device by name, or "auto" → the device, tried out. Raises InvalidInput."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=device).item()  # "meta", whose tensors have no content, fails here too
    except (RuntimeError, AssertionError) as error:
        raise InvalidInput(
            f"device {device!r} is not available here; use --device cpu or auto (in a recipe: run.device)"
        ) from error
    return torch.device(device)


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """A dtype by name, or "auto" → float32 on the CPU, else bfloat16. Raises InvalidInput."""
    check_dtype(dtype)
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    return DTYPES[dtype]
