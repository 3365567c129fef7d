"""Weak to strong: the transformer that training starts from, changed as the recipe declares (paper section 3.3).

Legend: C latent channels, D width, P patch size.
Pure functions over a configuration and its tensors. Each tensor's fate is a `Change`, and a tensor that is neither
expected nor named is an error. Knows nothing of folders, optimisers, or the other parts of a pipeline.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor

from pixart_sigma.errors import InvalidInput
from pixart_sigma.model import KVCompression, PixArtTransformer, TransformerConfig
from pixart_sigma.model.config import CompressionOperator
from pixart_sigma.model.kv_compression import CompressionInitialisation, KVCompressor
from pixart_sigma.resolution import LATENT_SCALE
from pixart_sigma.training.draws import keyed_generator
from pixart_sigma.weights.atomic import written_whole
from pixart_sigma.weights.checkpoint import DROPPED
from pixart_sigma.weights.compression import NamedBlocks, compressed_blocks
from pixart_sigma.weights.transformer import COMPRESSION_PARAMETERS, build

Action = Literal["kept", "resized", "made", "dropped", "configured"]
# Buffers of old checkpoints that have no slot here, under diffusers' and the official names.
BUFFERS = DROPPED | {
    "pos_embed": DROPPED["pos_embed.pos_embed"],
    "y_embedder.y_embedding": DROPPED["caption_projection.y_embedding"],
}
QK_NORM_PARAMETERS = (".attn1.q_norm.", ".attn1.k_norm.")
MICRO_CONDITIONING_PARAMETERS = (".resolution_embedder.", ".aspect_ratio_embedder.")
EMBEDDER_STD = 0.02  # DiT: the weights of every embedding's MLP
_BLOCK = re.compile(r"(?<=transformer_blocks\.)\d+(?=\.)")


class CompressionStart(Protocol):
    """What a recipe says of key/value compression."""

    @property
    def window(self) -> tuple[int, int]: ...
    @property
    def blocks(self) -> NamedBlocks | tuple[int, ...]: ...
    @property
    def operator(self) -> CompressionOperator: ...
    @property
    def init(self) -> CompressionInitialisation: ...
    @property
    def norm(self) -> bool | None: ...
    @property
    def from_tokens(self) -> int: ...


class TransformerStart(Protocol):
    """What a recipe says of the transformer to start from; None leaves that as it is."""

    @property
    def resolution(self) -> int | None: ...
    @property
    def interpolation_scale(self) -> float | None: ...
    @property
    def kv_compression(self) -> CompressionStart | None: ...
    @property
    def caption_length(self) -> int | None: ...
    @property
    def qk_norm(self) -> bool | None: ...
    @property
    def micro_conditioning(self) -> bool | None: ...


@dataclass(frozen=True)
class Change:
    """What became of a tensor, or (`configured`) of a value that is no tensor."""

    name: str
    action: Action
    detail: str


def operate(
    config: TransformerConfig,
    state_dict: Mapping[str, Tensor],
    start: TransformerStart,
    seed: int,
    latent_channels: int | None = None,
) -> tuple[TransformerConfig, dict[str, Tensor], list[Change]]:
    """A trained transformer → (the new configuration, exactly its tensors, what was done to every tensor).

    latent_channels: those of the autoencoder, where it is another one. Kept tensors are the given ones, not copies;
    made ones have the dtype and device of the model's. Draws are keyed by the seed and what they are for. Compression
    that the model has already stays as it was learned, in those of its blocks whose window and operator do not change.
    Raises WeightsError if config and state_dict do not fit (but for `BUFFERS`, which are dropped), InvalidInput for
    what the model cannot become.
    """
    old = {name: tensor for name, tensor in state_dict.items() if name not in BUFFERS}
    build(config, old, "the model to start from")
    new_config = new_config_of(config, start, latent_channels)
    changes = _configured(config, new_config, start)
    changes += [Change(name, "dropped", BUFFERS[name]) for name in state_dict if name in BUFFERS]

    with torch.device("meta"):
        slots = list(PixArtTransformer(new_config).state_dict())
    kept = old.keys() & set(slots) - _remade(old, config, new_config)
    changes += [
        Change(name, "dropped", f"{describe(tensor)}; {_why_dropped(name)}")
        for name, tensor in old.items()
        if name not in kept
    ]
    made = _made_tensors(new_config, start, seed)
    result: dict[str, Tensor] = {}
    for name in slots:
        if name not in kept:
            tensor, origin = made[name]
            result[name] = tensor.to(old["proj_out.weight"])
            changes.append(Change(name, "made", f"{describe(result[name])}; {origin}"))
        else:
            result[name] = _resized(name, old[name], config, new_config)
            changes.append(_kept_or_resized(name, old[name], result[name]))
    build(new_config, result, "the changed model")
    return new_config, result, changes


def compression_of(recipe: CompressionStart, num_layers: int) -> KVCompression:
    """A recipe's compression for a model of num_layers blocks. Raises InvalidInput for one that compresses nothing."""
    return KVCompression(
        recipe.window,
        recipe.operator,
        compressed_blocks(recipe.blocks, num_layers),
        recipe.norm,
        recipe.from_tokens,
    )


def write_surgery_log(changes: Sequence[Change], path: Path) -> None:
    """One JSON object {name, action, detail} per line, every tensor on one."""
    with written_whole(path) as temporary:
        lines = [json.dumps(asdict(change), ensure_ascii=False) for change in changes]
        temporary.write_text("\n".join(lines) + "\n", "utf-8")


def summarise(changes: Sequence[Change]) -> list[str]:
    """The changes in a few lines: what was kept is counted, and what befell several blocks alike is one line."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    for change in changes:
        if change.action != "kept":
            block = _BLOCK.search(change.name)
            key = change.action, _BLOCK.sub("{}", change.name), change.detail
            groups.setdefault(key, []).extend([int(block[0])] if block else [])
    lines = [
        f"{action} {name.replace('{}', f'{{{_ranges(blocks)}}}')}: {detail}"
        for (action, name, detail), blocks in groups.items()
    ]
    num_kept = sum(change.action == "kept" for change in changes)
    num_tensors = sum(change.action not in ("dropped", "configured") for change in changes)
    return [*lines, f"kept {num_kept} of {num_tensors} tensors as they were"]


def describe(tensor: Tensor) -> str:
    """Shape and dtype: "[1152, 1152] float32"."""
    return f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def new_config_of(
    config: TransformerConfig, start: TransformerStart, latent_channels: int | None = None
) -> TransformerConfig:
    """The configuration that `operate` gives a model. Raises InvalidInput as it does."""
    sample_size, scale = config.sample_size, config.interpolation_scale
    if start.resolution is not None:
        side = LATENT_SCALE * config.patch_size
        if start.resolution % side or start.resolution < side:
            nearest = max(round(start.resolution / side), 1) * side
            raise InvalidInput(
                f"resolution {start.resolution} is not a multiple of {side}; nearest: {nearest} "
                f"(--set start.resolution={nearest})"
            )
        sample_size = start.resolution // LATENT_SCALE
        # Every grid spans the same positions as before, however many tokens it has.
        scale = scale * sample_size / config.sample_size
    in_channels, out_channels = config.in_channels, config.out_channels
    if latent_channels is not None and latent_channels != in_channels:
        if out_channels % in_channels:
            raise InvalidInput(
                f"{out_channels} output channels are no multiple of {in_channels} latent channels; "
                "such a model keeps its autoencoder (leave start.vae out)"
            )
        in_channels, out_channels = latent_channels, out_channels // in_channels * latent_channels
    compression = config.kv_compression
    if start.kv_compression is not None:
        compression = compression_of(start.kv_compression, config.num_layers)
    return replace(
        config,
        sample_size=sample_size,
        interpolation_scale=scale if start.interpolation_scale is None else start.interpolation_scale,
        in_channels=in_channels,
        out_channels=out_channels,
        kv_compression=compression,
        qk_norm=config.qk_norm if start.qk_norm is None else start.qk_norm,
        micro_conditioning=(
            config.micro_conditioning if start.micro_conditioning is None else start.micro_conditioning
        ),
    )


def _configured(old: TransformerConfig, new: TransformerConfig, start: TransformerStart) -> list[Change]:
    changes = []
    for name, before in vars(old).items():
        after = getattr(new, name)
        if after == before:
            continue
        detail = f"{_in_words(before)} → {_in_words(after)}"
        if name == "interpolation_scale":
            spans = [config.base_grid / config.interpolation_scale for config in (old, new)]
            detail += f"; a grid's positions spanned {spans[0]:g}, now {spans[1]:g}"
        changes.append(Change(name, "configured", detail))
    if start.caption_length is not None:
        detail = f"{start.caption_length} tokens; no tensor of the transformer depends on it"
        changes.append(Change("caption_length", "configured", detail))
    return changes


def _in_words(value: object) -> str:
    if not isinstance(value, KVCompression):
        return str(value)
    norm = " and norm" if value.norm else ""
    limit = f", from {value.from_tokens} tokens on" if value.from_tokens else ""
    window = f"window {value.window[0]}x{value.window[1]}"
    return f"{value.operator}{norm}, {window}, blocks {_ranges(value.blocks)}{limit}"


def _remade(names: Mapping[str, Tensor], old: TransformerConfig, new: TransformerConfig) -> set[str]:
    """Compressors whose window changes: their convolution learned another one, and so did its bias and norm."""
    before, after = old.kv_compression, new.kv_compression
    if before is None or after is None or (before.window, before.operator) == (after.window, after.operator):
        return set()
    return {name for name in names if COMPRESSION_PARAMETERS in name}


def _why_dropped(name: str) -> str:
    if COMPRESSION_PARAMETERS in name:
        return "kv_compression is another one"
    if any(part in name for part in QK_NORM_PARAMETERS):
        return "qk_norm is turned off"
    return "micro_conditioning is turned off"


def _made_tensors(
    config: TransformerConfig, start: TransformerStart, seed: int
) -> dict[str, tuple[Tensor, str]]:
    """Every tensor that the recipe may add, fp32, and how it begins."""
    made: dict[str, tuple[Tensor, str]] = {}
    if start.kv_compression is not None and config.kv_compression is not None:
        for block in config.kv_compression.blocks:
            generator = keyed_generator(seed, 0, f"surgery compression {block}")
            tensors = _compressor_tensors(
                config.kv_compression, config.width, start.kv_compression.init, generator
            )
            prefix = f"transformer_blocks.{block}{COMPRESSION_PARAMETERS}"
            made |= {prefix + name: tensor for name, tensor in tensors.items()}
    if start.qk_norm:
        origin = "a plain LayerNorm, which changes what the model computes"
        for block in range(config.num_layers):
            for part in QK_NORM_PARAMETERS:
                made[f"transformer_blocks.{block}{part}weight"] = torch.ones(config.width), origin
                made[f"transformer_blocks.{block}{part}bias"] = torch.zeros(config.width), origin
    if start.micro_conditioning:
        made |= _micro_conditioning_tensors(config, keyed_generator(seed, 0, "surgery micro-conditioning"))
    return made


def _compressor_tensors(
    compression: KVCompression,
    width: int,
    initialisation: CompressionInitialisation,
    generator: torch.Generator,
) -> dict[str, tuple[Tensor, str]]:
    with torch.device("meta"):
        compressor = KVCompressor(compression, width)
    compressor.to_empty(device="cpu").initialise_weights(initialisation, generator)
    origins = {
        "conv.weight": f"the window's mean, 1/{compression.ratio}"
        if initialisation == "average"
        else "random",
        "conv.bias": "zero",
        "norm.weight": "one",
        "norm.bias": "zero",
    }
    return {name: (tensor, origins[name]) for name, tensor in compressor.state_dict().items()}


def _micro_conditioning_tensors(
    config: TransformerConfig, generator: torch.Generator
) -> dict[str, tuple[Tensor, str]]:
    """The two embedders, their last layers at zero, so that the model computes what it did."""
    with torch.device("meta"):
        embedding = PixArtTransformer(config).adaln_single.emb
    made = {}
    for name, slot in embedding.state_dict(prefix="adaln_single.emb.").items():
        if not any(part in name for part in MICRO_CONDITIONING_PARAMETERS):
            continue
        if name.endswith("linear_1.weight"):
            values = EMBEDDER_STD * torch.randn(slot.shape, generator=generator)
            made[name] = values, f"normal, std {EMBEDDER_STD}"
        else:
            made[name] = torch.zeros(slot.shape), "zero"
    return made


def _resized(name: str, tensor: Tensor, old: TransformerConfig, new: TransformerConfig) -> Tensor:
    """A tensor for another number of latent channels: the first ones keep their weights, the others get zeros.

    With zeros the model reads and predicts the first channels as before, and learns from its first step: gradients of
    these weights are not zero, as they come from the new latents and from the errors of predicting them.
    """
    if old.in_channels == new.in_channels:
        return tensor
    if name == "pos_embed.proj.weight":  # (D, C, P, P)
        return _with_channels(tensor, 1, new.in_channels)
    if name in ("proj_out.weight", "proj_out.bias"):
        # Rows are patch by patch, then prediction and variance, then channels: (P P, 1 or 2, C) together.
        parts = old.out_channels // old.in_channels
        rows = tensor.unflatten(0, (-1, parts, old.in_channels))
        return _with_channels(rows, 2, new.in_channels).flatten(0, 2)
    return tensor


def _kept_or_resized(name: str, old: Tensor, new: Tensor) -> Change:
    if new is old:
        return Change(name, "kept", describe(old))
    fate = "further channels start at zero" if new.numel() > old.numel() else "further channels are cut"
    return Change(name, "resized", f"{list(old.shape)} → {describe(new)}; {fate}")


def _with_channels(tensor: Tensor, dim: int, num_channels: int) -> Tensor:
    shape = list(tensor.shape)
    shape[dim] = num_channels
    result = tensor.new_zeros(shape)
    shared = min(num_channels, tensor.shape[dim])
    result.narrow(dim, 0, shared).copy_(tensor.narrow(dim, 0, shared))
    return result


def _ranges(numbers: Sequence[int]) -> str:
    """0, 1, 2, 5 → "0-2, 5"; ascending."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
