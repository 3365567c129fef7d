"""An autoencoder's folder, as diffusers writes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixart_sigma.encoders.kl_autoencoder import AutoencoderConfig, KLAutoencoder
from pixart_sigma.encoders.weight_files import (
    CONFIG_FILE,
    faults_named,
    find_tensors,
    mapped_tensors,
    read_config,
)

WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
_DOWN, _UP = "DownEncoderBlock2D", "UpDecoderBlock2D"
# Autoencoders of Stable Diffusion's time have these names of the attention's layers.
_OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def parse_config(content: Mapping[str, Any]) -> AutoencoderConfig:
    """config.json's content → AutoencoderConfig. Raises ValueError for another kind of autoencoder."""
    widths = tuple(content.get("block_out_channels", AutoencoderConfig.block_out_channels))
    expected = {
        "down_block_types": [_DOWN] * len(widths),
        "up_block_types": [_UP] * len(widths),
        "act_fn": "silu",
        "latents_mean": None,
        "latents_std": None,
    }
    for name, value in expected.items():
        found = content.get(name, value)
        if (list(found) if isinstance(found, tuple) else found) != value:
            raise ValueError(f"{name} is {found!r}, not {value!r}")
    if any(isinstance(width, bool) or not isinstance(width, int) or width < 1 for width in widths):
        raise ValueError(f"block_out_channels is {list(widths)!r}")
    known = {field.name: content[field.name] for field in fields(AutoencoderConfig) if field.name in content}
    for name in ("in_channels", "out_channels", "latent_channels", "layers_per_block", "norm_num_groups"):
        value = known.get(name, 1)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is {value!r}")
    factors = {
        "scaling_factor": known.get("scaling_factor", 1.0),
        "shift_factor": known.get("shift_factor") or 0.0,
    }
    for name, value in factors.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{name} is {value!r}")
    return AutoencoderConfig(**known | {"block_out_channels": widths})


def config_content(config: AutoencoderConfig) -> dict[str, Any]:
    """What config.json says, for diffusers' `AutoencoderKL` too."""
    levels = len(config.block_out_channels)
    return {
        "_class_name": "AutoencoderKL",
        **asdict(config),
        "act_fn": "silu",
        "down_block_types": [_DOWN] * levels,
        "up_block_types": [_UP] * levels,
    }


def empty_autoencoder(content: Mapping[str, Any], source: Path | str) -> KLAutoencoder:
    """config.json's content → the autoencoder on the meta device, in eval mode. source: whose, for messages.

    Raises WeightsError.
    """
    with faults_named(Path(source)), torch.device("meta"):
        return KLAutoencoder(parse_config(content)).eval()


def load_autoencoder(folder: Path, dtype: torch.dtype = torch.float32) -> KLAutoencoder:
    """A folder with config.json and .safetensors → the autoencoder in eval mode on the CPU, in channels-last order.

    Raises WeightsError if a file is missing or corrupt, or if any tensor lacks or does not fit.
    """
    model = empty_autoencoder(read_config(folder), folder / CONFIG_FILE)
    places = find_tensors(
        folder,
        WEIGHTS_FILE,
        {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()},
        renamed=_renamed,
        passed_over=lambda _: False,
    )
    mapped = mapped_tensors(places, places)
    # One after the other, cast and laid out at once: the weights are never there twice.
    model.load_state_dict({name: _laid_out(mapped.pop(name), dtype) for name in list(mapped)}, assign=True)
    return model


def _laid_out(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype, memory_format=torch.channels_last if tensor.ndim == 4 else torch.preserve_format)


def _renamed(name: str) -> str:
    *before, layer, kind = name.split(".")
    if "attentions" in before and layer in _OLD_NAMES:
        return ".".join((*before, _OLD_NAMES[layer], kind))
    return name
