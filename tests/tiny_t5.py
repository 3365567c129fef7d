"""Tiny random T5 encoders in the layout of v1.1, as files in every form that they come in."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

BOTH_NAMES = ("encoder.embed_tokens.weight", "shared.weight")


def t5_config(**changes: Any) -> Any:
    from transformers import T5Config

    sizes = {"vocab_size": 50, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 3, "num_heads": 4}
    return T5Config(**(sizes | changes), feed_forward_proj="gated-gelu")


def t5_weights(config: Any, dtype: torch.dtype, scale: float = 0.1) -> dict[str, Tensor]:
    """No two alike, norms included, so that a tensor in another's place shows; the table once, as "shared"."""
    from transformers import T5EncoderModel

    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in T5EncoderModel(config).state_dict().items()}
    generator = torch.Generator().manual_seed(11)
    return {
        name: (("norm" in name) + scale * torch.randn(shape, generator=generator)).to(dtype)
        for name, shape in shapes.items()
        if name != BOTH_NAMES[0]
    }


def write_t5(folder: Path, config: Any, weights: dict[str, Tensor], num_files: int = 1) -> Path:
    """One file, or several with an index; a block's tensors are then in different files."""
    folder.mkdir()
    config.save_pretrained(folder)
    if num_files == 1:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    weight_map: dict[str, str] = {}
    for number in range(num_files):
        name = f"model-{number + 1:05}-of-{num_files:05}.safetensors"
        shard = {key: weights[key] for key in sorted(weights)[number::num_files]}
        save_file(shard, folder / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(shard, name)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    return folder
