"""Parameter names: the official PixArt release beside ours (which are those of diffusers'
PixArtTransformer2DModel).

One table. It maps names and splits fused projections; it does not know what a file is, nor whether a model
wants the tensors.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from pixart_sigma.errors import WeightsError

# Official module or parameter -> ours. Several of ours: the official rows are these, stacked in this order.
# `{}` is a block's number. A trailing `.weight` or `.bias` is carried over.
OFFICIAL_NAMES: dict[str, tuple[str, ...]] = {
    "x_embedder.proj": ("pos_embed.proj",),
    "y_embedder.y_proj.fc1": ("caption_projection.linear_1",),
    "y_embedder.y_proj.fc2": ("caption_projection.linear_2",),
    "t_embedder.mlp.0": ("adaln_single.emb.timestep_embedder.linear_1",),
    "t_embedder.mlp.2": ("adaln_single.emb.timestep_embedder.linear_2",),
    "csize_embedder.mlp.0": ("adaln_single.emb.resolution_embedder.linear_1",),
    "csize_embedder.mlp.2": ("adaln_single.emb.resolution_embedder.linear_2",),
    "ar_embedder.mlp.0": ("adaln_single.emb.aspect_ratio_embedder.linear_1",),
    "ar_embedder.mlp.2": ("adaln_single.emb.aspect_ratio_embedder.linear_2",),
    "t_block.1": ("adaln_single.linear",),
    "blocks.{}.scale_shift_table": ("transformer_blocks.{}.scale_shift_table",),
    "blocks.{}.attn.qkv": (
        "transformer_blocks.{}.attn1.to_q",
        "transformer_blocks.{}.attn1.to_k",
        "transformer_blocks.{}.attn1.to_v",
    ),
    "blocks.{}.attn.proj": ("transformer_blocks.{}.attn1.to_out.0",),
    "blocks.{}.attn.q_norm": ("transformer_blocks.{}.attn1.q_norm",),
    "blocks.{}.attn.k_norm": ("transformer_blocks.{}.attn1.k_norm",),
    "blocks.{}.attn.sr": ("transformer_blocks.{}.attn1.kv_compression.conv",),
    "blocks.{}.attn.norm": ("transformer_blocks.{}.attn1.kv_compression.norm",),
    "blocks.{}.cross_attn.q_linear": ("transformer_blocks.{}.attn2.to_q",),
    "blocks.{}.cross_attn.kv_linear": (
        "transformer_blocks.{}.attn2.to_k",
        "transformer_blocks.{}.attn2.to_v",
    ),
    "blocks.{}.cross_attn.proj": ("transformer_blocks.{}.attn2.to_out.0",),
    "blocks.{}.mlp.fc1": ("transformer_blocks.{}.ff.net.0.proj",),
    "blocks.{}.mlp.fc2": ("transformer_blocks.{}.ff.net.2",),
    "final_layer.linear": ("proj_out",),
    "final_layer.scale_shift_table": ("scale_shift_table",),
}

_SOURCES = {target: source for source, targets in OFFICIAL_NAMES.items() for target in targets}

# Official buffers without a slot: positions are recomputed; the null caption T5("") belongs in a side file.
OFFICIAL_BUFFERS = ("pos_embed", "y_embedder.y_embedding")

_NAME = re.compile(r"(?P<module>.*?)(?P<leaf>\.weight|\.bias)?", re.DOTALL)
_BLOCK = re.compile(r"(?<=blocks\.)[0-9]+(?=\.)")


def _split_name(name: str) -> tuple[str, str, str]:
    """A parameter's name → (its module with `{}` for the block's number, that number or "", `.weight`/`.bias`
    or "").
    """
    match = _NAME.fullmatch(name)
    assert match is not None  # the pattern matches every string
    number = _BLOCK.search(match["module"])
    return _BLOCK.sub("{}", match["module"], count=1), number[0] if number else "", match["leaf"] or ""


def from_official(state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Official names → ours; fused q/k/v rows are split.

    Returns (state dict in our names, what has no slot in the table): the latter holds the known
    `OFFICIAL_BUFFERS` and anything unknown, under its official name. Raises WeightsError for rows that cannot be split.
    """
    ours: dict[str, Tensor] = {}
    leftovers: dict[str, Tensor] = {}
    for name, tensor in state_dict.items():
        module, number, leaf = _split_name(name)
        targets = OFFICIAL_NAMES.get(module)
        if targets is None:
            leftovers[name] = tensor
            continue
        if len(targets) == 1:
            ours[targets[0].format(number) + leaf] = tensor
            continue
        if tensor.ndim == 0 or tensor.shape[0] % len(targets):
            raise WeightsError(
                f"{name} has shape {list(tensor.shape)}, whose rows are not {len(targets)} equal parts; "
                "fetch or export it again"
            )
        for target, rows in zip(targets, tensor.chunk(len(targets)), strict=True):
            # Copies: files refuse tensors that share memory.
            ours[target.format(number) + leaf] = rows.clone()
    return ours, leftovers


def to_official(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our names → official ones, q/k/v rows fused: the inverse of `from_official`, bit by bit.

    Raises WeightsError for a name without an official one, or for rows to be fused of which some are missing or of
    another dtype.
    """
    official: dict[str, Tensor] = {}
    for name, tensor in state_dict.items():
        module, number, leaf = _split_name(name)
        if module not in _SOURCES:
            raise WeightsError(
                f"{name} has no place in the official layout; convert to diffusers or single-file"
            )
        source = _SOURCES[module].format(number) + leaf
        if source in official:
            continue
        members = [target.format(number) + leaf for target in OFFICIAL_NAMES[_SOURCES[module]]]
        if len(members) == 1:
            official[source] = tensor
            continue
        rows = [state_dict[member] for member in members if member in state_dict]
        if len(rows) != len(members) or len({row.dtype for row in rows}) != 1:
            raise WeightsError(
                f"{source} cannot be made: {', '.join(members)} are not all there in one dtype"
            )
        official[source] = torch.cat(rows)
    return official
