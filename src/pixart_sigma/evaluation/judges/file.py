"""A judge's file: its weights in bf16, and what they are the weights of in the file's metadata.

Knows nothing of what the networks compute.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from pixart_sigma.encoders.pretrained import first_line
from pixart_sigma.errors import WeightsError
from pixart_sigma.weights.atomic import written_whole
from pixart_sigma.weights.tensor_files import read_weights

_KEY = "judge"

M = TypeVar("M", bound=nn.Module)


def judge_file(name: str) -> Path:
    """Where a file of the package's own judges is."""
    return Path(str(files("pixart_sigma").joinpath("judges", name)))


def save_judge(model: nn.Module, description: dict[str, Any], path: Path) -> None:
    """Write the model's weights in bf16, and its description as JSON in the metadata; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in model.state_dict().items()}
    with written_whole(path) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt", _KEY: json.dumps(description)})


def load_judge(path: Path, build: Callable[[dict[str, Any]], M]) -> M:
    """build(description) with the file's weights, in fp32 and eval mode.

    Raises WeightsError if the file is missing or corrupt, or if `build` refuses the description with a ValueError.
    """
    tensors = read_weights(path)
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        model = build(json.loads(metadata[_KEY]))
        model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(
            f"{path} is no judge that this version knows ({first_line(error)}); train it again"
        ) from error
    return model.eval()
