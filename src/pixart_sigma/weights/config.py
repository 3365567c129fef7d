"""The transformer's `config.json` in diffusers' layout ↔ `TransformerConfig`.

Two keys are ours: `qk_norm`, and `kv_compression` {window, operator, blocks, norm, from_tokens}.
Knows nothing of tensors.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

from pixart_sigma.errors import InvalidInput, WeightsError
from pixart_sigma.model.config import KVCompression, TransformerConfig

# What diffusers' class could vary and no PixArt does; a configuration that says otherwise is another model.
FIXED: dict[str, Any] = {
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "attention_type": "default",
    "dropout": 0.0,
    "norm_elementwise_affine": False,
    "norm_eps": 1e-6,
    "norm_type": "ada_norm_single",
    "num_embeds_ada_norm": 1000,
    "upcast_attention": False,
}
# Diffusers' names of our fields, and its defaults where the file leaves them out.
FIELDS: dict[str, Any] = {
    "num_layers": 28,
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "in_channels": 4,
    "out_channels": 8,
    "patch_size": 2,
    "sample_size": 128,
    "caption_channels": None,
    "interpolation_scale": None,
}
MICRO_CONDITIONING_PREFIX = "adaln_single.emb.resolution_embedder."
CLASS_NAME = "PixArtTransformer2DModel"


def transformer_config(content: Mapping[str, Any], parameter_names: Collection[str]) -> TransformerConfig:
    """config.json's content and the names in the weights file → TransformerConfig.

    The names decide about micro-conditioning where the file leaves it open: diffusers would turn it on
    whenever sample_size is 128, which is wrong for Σ. Raises WeightsError for what this model cannot be.
    """
    for key, value in FIXED.items():
        if content.get(key, value) != value:
            raise WeightsError(
                f"{key} {content[key]!r} is not PixArt's; it must be {value!r}: another model's config?"
            )
    fields = {key: content.get(key, default) for key, default in FIELDS.items()}
    if fields["caption_channels"] is None:
        raise WeightsError(
            "config.json has no caption_channels; set it to the text encoder's width (T5-XXL: 4096)"
        )
    for name, value in fields.items():
        if value is not None and not isinstance(value, int | float):
            raise WeightsError(f"config.json has {name} {value!r}, not a number; fetch or export it again")
    if fields["interpolation_scale"] is None:
        fields["interpolation_scale"] = max(fields["sample_size"] // 64, 1)  # diffusers' default
    micro_conditioning = content.get("use_additional_conditions")
    if micro_conditioning is None:
        micro_conditioning = any(name.startswith(MICRO_CONDITIONING_PREFIX) for name in parameter_names)
    try:
        compression = content.get("kv_compression")
        return TransformerConfig(
            **fields,
            micro_conditioning=micro_conditioning,
            qk_norm=content.get("qk_norm", False),
            kv_compression=KVCompression(**compression) if compression else None,
        )
    except (InvalidInput, TypeError) as error:
        raise WeightsError(f"config.json describes no transformer: {error}") from error


def config_content(config: TransformerConfig) -> dict[str, Any]:
    """TransformerConfig → config.json's content, which diffusers reads too unless one of our keys is set."""
    content: dict[str, Any] = {"_class_name": CLASS_NAME, **FIXED}
    content |= {key: getattr(config, key) for key in FIELDS}
    content |= {"cross_attention_dim": config.width, "use_additional_conditions": config.micro_conditioning}
    if config.qk_norm:
        content["qk_norm"] = True
    if config.kv_compression is not None:
        content["kv_compression"] = asdict(config.kv_compression)
    return dict(sorted(content.items()))
