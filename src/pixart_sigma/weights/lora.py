"""LoRA and DoRA adapters: their files, and their merging into a transformer's weights.

Legend: O outputs and I inputs of an adapted layer, r rank. A convolution counts as the linear layer of its patches.

A file is what peft writes, and carries peft's configuration in its metadata too, so that it suffices alone. Never
unpickles. Knows nothing of training.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pixart_sigma.encoders.pretrained import abbreviate
from pixart_sigma.errors import WeightsError
from pixart_sigma.model.transformer import PixArtTransformer
from pixart_sigma.weights.atomic import written_whole
from pixart_sigma.weights.folder import ADAPTER_CONFIG_FILE, ADAPTER_FILE, find_lora, read_json
from pixart_sigma.weights.tensor_files import read_weights

PEFT_PREFIX = "base_model.model."
METADATA_KEY = "lora_adapter_metadata"  # diffusers' name for peft's configuration within the file
# peft's options that change what the tensors mean, and the values that are understood.
UNDERSTOOD: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "lora_bias": (False,),
    "use_rslora": (False,),
    "fan_in_fan_out": (False,),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "modules_to_save": (None,),
    # Other ways to begin, such as "pissa", change the base model.
    "init_lora_weights": (True, False, "gaussian"),
}

_KEY = re.compile(
    r"^(?:base_model\.model\.)?(?:transformer\.)?(?P<module>.+)\."
    r"(?P<part>lora_A|lora_B|lora\.down|lora\.up|lora_magnitude_vector|alpha)(?:\.weight)?$"
)
_PARTS = {
    "lora_A": "down",
    "lora.down": "down",
    "lora_B": "up",
    "lora.up": "up",
    "lora_magnitude_vector": "magnitude",
    "alpha": "alpha",
}


@dataclass(frozen=True)
class LowRank:
    """What one layer's weight W becomes: W + scale · up @ down, and with DoRA that, its rows brought to `magnitude`.

    down (r, I) or (r, *patch), up (O, r) or (O, r, 1, 1), magnitude (O,) or None.
    """

    down: Tensor
    up: Tensor
    scale: float
    magnitude: Tensor | None = None


@dataclass(frozen=True)
class Adapter:
    """The updates by the names of the transformer's layers; `source` is for messages."""

    updates: dict[str, LowRank]
    source: str


@dataclass(frozen=True)
class AdapterSettings:
    """What an adapter's tensors do not say: peft's r, lora_alpha, use_dora and target_modules, and the base's name."""

    rank: int
    alpha: float
    dora: bool
    targets: tuple[str, ...]
    base_model: str | None = None


def load_lora(path: Path | str) -> Adapter:
    """A .safetensors file, or peft's folder → Adapter, on the CPU.

    Names are peft's (lora_A, lora_B) or diffusers' older ones (lora.down, lora.up). alpha is the file's own, or the
    configuration's, or, as in diffusers, the rank. Raises InvalidInput for a missing file, WeightsError for one that
    is corrupt or holds anything else.
    """
    file = find_lora(path)
    tensors = read_weights(file)
    config = _read_config(file)
    if config is None and any(name.startswith(PEFT_PREFIX) for name in tensors):
        raise WeightsError(
            f"LoRA {file} does not say its alpha, which peft keeps in {ADAPTER_CONFIG_FILE}; put that file beside it"
        )
    for key, values in UNDERSTOOD.items():
        if config is not None and config.get(key, values[0]) not in values:
            raise WeightsError(
                f"LoRA {file} has {key} {config[key]!r}, which is not supported; use {values[0]!r}"
            )
    alpha = None if config is None else config.get("lora_alpha")
    adapter = Adapter(updates_from(tensors, alpha, str(file)), str(file))
    if config is not None:
        _check_config(config, adapter)
    return adapter


def updates_from(tensors: Mapping[str, Tensor], alpha: float | None, source: str) -> dict[str, LowRank]:
    """Tensors by their names in a file → updates by layer; alpha None: the tensors' own, or the rank.

    Raises WeightsError for other names, and for a layer that lacks a part.
    """
    unknown = [name for name in tensors if _KEY.match(name) is None]
    if unknown or not tensors:
        raise WeightsError(
            f"{source} is no LoRA: {abbreviate(sorted(unknown)) or 'no tensors'}; "
            "tensors must be called <layer>.lora_A.weight and <layer>.lora_B.weight"
        )
    layers: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match = _KEY.match(name)
        assert match is not None  # the others were refused above
        layers.setdefault(match["module"], {})[_PARTS[match["part"]]] = tensor
    halves = sorted(name for name, parts in layers.items() if not {"down", "up"} <= parts.keys())
    if halves:
        raise WeightsError(f"LoRA {source} lacks lora_A or lora_B of {abbreviate(halves)}; export it again")
    updates = {}
    for name, parts in layers.items():
        rank = parts["down"].shape[0]
        layer_alpha = float(parts["alpha"]) if "alpha" in parts else rank if alpha is None else alpha
        updates[name] = LowRank(parts["down"], parts["up"], layer_alpha / rank, parts.get("magnitude"))
    return updates


def apply_lora(transformer: PixArtTransformer, adapter: Adapter, strength: float = 1.0) -> None:
    """Merge one adapter into the weights; see `apply_loras`."""
    apply_loras(transformer, [(adapter, strength)])


@torch.no_grad()
def apply_loras(transformer: PixArtTransformer, adapters: Sequence[tuple[Adapter, float]]) -> None:
    """Merge adapters into the transformer's weights, in place; strength 0 changes nothing, 1 is as trained.

    W becomes W + Σ strength · (W adapted - W): every change is that to the weights as they are on entry, so that
    the order does not matter, whether LoRA or DoRA. Computed in fp32, kept in the weights' dtype. Raises WeightsError,
    before anything is changed, if a layer is not in the model or has another shape.
    """
    for adapter, _ in adapters:
        _check_fit(transformer, adapter)
    for name in sorted({name for adapter, _ in adapters for name in adapter.updates}):
        weight = transformer.get_submodule(name).weight
        base = weight.float().flatten(1)
        merged = base.clone()
        for adapter, strength in adapters:
            if name in adapter.updates:
                merged += strength * _change(base, adapter.updates[name])
        weight.copy_(merged.view_as(weight))


def save_adapter(folder: Path | str, tensors: Mapping[str, Tensor], settings: AdapterSettings) -> None:
    """Writes peft's folder: adapter_config.json and adapter_model.safetensors, each whole or not at all.

    tensors: `<layer>.lora_A.weight`, `.lora_B.weight` and, with DoRA, `.lora_magnitude_vector`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "base_model_name_or_path": settings.base_model,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": settings.alpha,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": settings.rank,
        "target_modules": list(settings.targets),
        "use_dora": settings.dora,
    }
    named = {f"{PEFT_PREFIX}{name}": tensor.detach().contiguous() for name, tensor in tensors.items()}
    with written_whole(folder / ADAPTER_FILE) as temporary:
        save_file(
            named, temporary, metadata={"format": "pt", METADATA_KEY: json.dumps(content, sort_keys=True)}
        )
    with written_whole(folder / ADAPTER_CONFIG_FILE) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def _read_config(file: Path) -> dict[str, Any] | None:
    """peft's configuration: in the file's metadata, or beside a file that has peft's name, or None."""
    with safe_open(file, framework="pt") as opened:
        text = (opened.metadata() or {}).get(METADATA_KEY)
    if text is not None:
        try:
            content = json.loads(text)
        except ValueError as error:
            raise WeightsError(
                f"LoRA {file} has a broken {METADATA_KEY} ({error}); export it again"
            ) from error
        if not isinstance(content, dict):
            raise WeightsError(f"LoRA {file} has a {METADATA_KEY} that is no JSON object; export it again")
        # diffusers says whose configuration it is.
        return {key.removeprefix("transformer."): value for key, value in content.items()}
    beside = file.parent / ADAPTER_CONFIG_FILE
    return read_json(beside) if file.name == ADAPTER_FILE and beside.is_file() else None


def _check_config(config: Mapping[str, Any], adapter: Adapter) -> None:
    rank, dora, alpha = config.get("r"), bool(config.get("use_dora", False)), config.get("lora_alpha")
    if not isinstance(alpha, int | float):
        raise WeightsError(f"LoRA {adapter.source} has lora_alpha {alpha!r}, not a number; export it again")
    for name, update in adapter.updates.items():
        if update.down.shape[0] != rank:
            raise WeightsError(
                f"LoRA {adapter.source} says rank {rank}, its {name} has {update.down.shape[0]}; export it again"
            )
        if (update.magnitude is not None) != dora:
            raise WeightsError(
                f"LoRA {adapter.source} says use_dora {dora}, its {name} has "
                f"{'a' if update.magnitude is not None else 'no'} lora_magnitude_vector; export it again"
            )


def _check_fit(transformer: PixArtTransformer, adapter: Adapter) -> None:
    layers = {
        name: module.weight.shape
        for name, module in transformer.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }
    unknown = sorted(adapter.updates.keys() - layers.keys())
    misshapen = [
        f"{name} {_shape_of(update)} instead of {list(layers[name])}"
        for name, update in adapter.updates.items()
        if name in layers and not _fits(update, layers[name])
    ]
    problems = {"no such layer": unknown, "wrong shape": misshapen}
    found = [f"{problem}: {abbreviate(names)}" for problem, names in problems.items() if names]
    if found:
        raise WeightsError(
            f"LoRA {adapter.source} does not fit the model; {'; '.join(found)}; use the model it was trained on"
        )


def _shape_of(update: LowRank) -> list[int]:
    return [update.up.shape[0], *update.down.shape[1:]]


def _fits(update: LowRank, shape: torch.Size) -> bool:
    return (
        min(update.down.ndim, update.up.ndim) >= 2
        and _shape_of(update) == list(shape)
        and update.up.shape[1:].numel() == update.down.shape[0]
        and (update.magnitude is None or update.magnitude.numel() == shape[0])
    )


def _change(base: Tensor, update: LowRank) -> Tensor:
    """base (O, I) fp32 → what the adapter adds to it at strength 1, (O, I)."""
    down, up = (half.to(base.device, torch.float32).flatten(1) for half in (update.down, update.up))
    change = update.scale * (up @ down)
    if update.magnitude is None:
        return change
    # DoRA, section 4.1: magnitude and direction of the weight's rows are learned apart.
    direction = torch.nn.functional.normalize(base + change, dim=1)
    return update.magnitude.to(base.device, torch.float32).reshape(-1, 1) * direction - base
