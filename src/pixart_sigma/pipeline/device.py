"""Where and in which precision models run, by the names that users give. Knows nothing of models."""

import torch

from pixart_sigma.errors import InvalidInput

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


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
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if dtype not in DTYPES:
        raise InvalidInput(f"unknown dtype {dtype!r}; one of auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]
