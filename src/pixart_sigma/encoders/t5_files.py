"""A T5 encoder's folder, as transformers writes it."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixart_sigma.encoders.t5 import KEPT_IN_FP32, T5Config, T5Encoder
from pixart_sigma.encoders.weight_files import (
    CONFIG_FILE,
    Place,
    faults_named,
    find_tensors,
    mapped_tensors,
    read_config,
)
from pixart_sigma.errors import WeightsError

WEIGHTS_FILE = "model.safetensors"
_SAME_TABLE = {"encoder.embed_tokens.weight": "shared.weight"}
"""Another name of the embeddings; files have either or both."""
_ALWAYS_THERE = ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads")


def read_t5_config(folder: Path) -> T5Config:
    """A folder with config.json → T5Config.

    Raises WeightsError if it is missing or unreadable, or says of a T5 that it is of the first version.
    """
    content = read_config(folder)
    with faults_named(folder / CONFIG_FILE):
        missing = [name for name in _ALWAYS_THERE if name not in content]
        if missing:
            raise ValueError(f"it has no {missing[0]}")
        known = {field.name: content[field.name] for field in fields(T5Config) if field.name in content}
        for name, value in known.items():
            kind = float if name == "layer_norm_epsilon" else int
            if isinstance(value, bool) or not isinstance(value, kind) or value <= 0:
                raise ValueError(f"{name} is {value!r}")
        config = T5Config(**known)
        exact = config.relative_attention_num_buckets // 4
        if not 0 < exact < config.relative_attention_max_distance:
            raise ValueError(f"relative_attention_num_buckets is {config.relative_attention_num_buckets}")
    if content.get("feed_forward_proj") != "gated-gelu":
        raise WeightsError(
            f"{folder} has feed_forward_proj {content.get('feed_forward_proj')!r}; only gated-gelu is known here, that "
            "of T5 v1.1 and Flan-T5, which PixArt uses"
        )
    return config


def config_content(model: T5Encoder) -> dict[str, Any]:
    """What config.json says of a model, for transformers' `T5EncoderModel` too."""
    return {
        "architectures": ["T5EncoderModel"],
        "model_type": "t5",
        "dtype": str(model.dtype).removeprefix("torch."),
        **asdict(model.config),
        "feed_forward_proj": "gated-gelu",
        "dropout_rate": 0.0,
        "is_encoder_decoder": False,
        "use_cache": False,
        "pad_token_id": 0,
        "eos_token_id": 1,
    }


def empty_t5(folder: Path) -> T5Encoder:
    """A folder with config.json → the encoder on the meta device. Raises WeightsError."""
    config = read_t5_config(folder)
    with faults_named(folder / CONFIG_FILE), torch.device("meta"):
        return T5Encoder(config).eval()


def find_t5_tensors(folder: Path, model: T5Encoder) -> dict[str, Place]:
    """Where each tensor of a model is. Raises WeightsError if not each is there, in its shape, with nothing beside."""
    return find_tensors(
        folder,
        WEIGHTS_FILE,
        {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()},
        renamed=lambda name: _SAME_TABLE.get(name, name),
        may_be_twice=_SAME_TABLE.values(),
        # A whole T5 may lie there.
        passed_over=lambda name: name.startswith("decoder.") or name == "lm_head.weight",
    )


def load_t5(folder: Path, dtype: torch.dtype = torch.float32) -> T5Encoder:
    """A folder with config.json and .safetensors → the encoder in eval mode on the CPU.

    Raises WeightsError if a file is missing or corrupt, or if any tensor lacks or does not fit.
    """
    model = empty_t5(folder)
    places = find_t5_tensors(folder, model)
    mapped = mapped_tensors(places, places)
    model.load_state_dict({name: cast(name, tensor, dtype) for name, tensor in mapped.items()}, assign=True)
    return model


def cast(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A weight in the dtype that is computed in; in fp16 some stay in fp32."""
    kept = dtype == torch.float16 and KEPT_IN_FP32 in name.split(".")
    return tensor.to(torch.float32 if kept else dtype)
