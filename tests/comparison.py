"""How tests compare tensors and find the golden ones."""

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

GOLDENS = Path(__file__).parent / "goldens"


def relative_error(a: Tensor, b: Tensor) -> float:
    """max|a - b| / max|b|; the project's "equal to 1e-5" is this, in fp32, with b the reference."""
    assert a.shape == b.shape, f"shapes differ: {tuple(a.shape)} and {tuple(b.shape)}"
    return float((a.detach() - b.detach()).abs().max() / b.detach().abs().max())


def load_golden(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """One golden file → (its tensors, the configuration in its metadata)."""
    with safe_open(GOLDENS / f"{name}.safetensors", framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, json.loads(file.metadata()["config"])  # noqa: SIM118
