"""The transformer's `config.json` in diffusers' layout ↔ `TransformerConfig`.

Two keys are ours: `qk_norm`, and `kv_compression` {window, operator, blocks, norm, from_tokens}.
Knows nothing of tensors.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

from pixart_sigma.errors import InvalidInput, WeightsError
from pixart_sigma.model.config import KVCompression, TransformerConfig
from pixart_sigma.weights.catalogue import Release

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
FRACTIONS = ("interpolation_scale",)
MAY_BE_NULL = ("interpolation_scale",)
LARGEST = 1_000_000  # no size of any model comes near; beyond, a file would decide how long we are busy
LONGEST_SHOWN = 60
MICRO_CONDITIONING_PREFIX = "adaln_single.emb.resolution_embedder."
CLASS_NAME = "PixArtTransformer2DModel"
# diffusers' class would ignore our keys with a warning and compute something else, so it is not named where one is set.
OWN_CLASS_NAME = "PixArtSigmaTransformer2DModel"
OWN_CLASS_MODULE = "pixart_sigma.integrations.diffusers"


def transformer_config(content: Mapping[str, Any], parameter_names: Collection[str]) -> TransformerConfig:
    """config.json's content and the names in the weights file → TransformerConfig.

    The names decide about micro-conditioning where the file leaves it open: diffusers would turn it on
    whenever sample_size is 128, which is wrong for Σ. Raises WeightsError for what this model cannot be.
    """
    for key, value in FIXED.items():
        if content.get(key, value) != value:
            raise WeightsError(
                f"config.json has {key} {_short(content[key])}, which is not PixArt's; "
                f"it must be {value!r}: another model's config?"
            )
    fields = {key: content.get(key, default) for key, default in FIELDS.items()}
    if fields["caption_channels"] is None:
        raise WeightsError(
            "config.json has no caption_channels; set it to the text encoder's width (T5-XXL: 4096)"
        )
    for name, value in fields.items():
        if value is not None or name not in MAY_BE_NULL:
            _check_number(name, value)
    if fields["interpolation_scale"] is None:
        fields["interpolation_scale"] = max(fields["sample_size"] // 64, 1)  # diffusers' default
    micro_conditioning = content.get("use_additional_conditions")
    for name, value in (
        ("use_additional_conditions", micro_conditioning or False),
        ("qk_norm", content.get("qk_norm", False)),
    ):
        if not isinstance(value, bool):
            raise WeightsError(
                f"config.json has {name} {_short(value)}, not true or false; fetch or export it again"
            )
    if micro_conditioning is None:
        micro_conditioning = any(name.startswith(MICRO_CONDITIONING_PREFIX) for name in parameter_names)
    try:
        return TransformerConfig(
            **fields,
            micro_conditioning=micro_conditioning,
            qk_norm=content.get("qk_norm", False),
            kv_compression=_compression(content.get("kv_compression")),
        )
    except (InvalidInput, TypeError) as error:
        raise WeightsError(f"config.json describes no PixArt transformer: {error}") from error


def _check_number(name: str, value: Any) -> None:
    """Raises WeightsError unless it is a number that a model's size can be, whole where it counts something."""
    kinds = (int, float) if name in FRACTIONS else (int,)
    if not isinstance(value, kinds) or isinstance(value, bool):
        kind = "a number" if name in FRACTIONS else "a whole number"
        raise WeightsError(f"config.json has {name} {_short(value)}, not {kind}; fetch or export it again")
    if not 0 < value <= LARGEST:  # not a number compares false
        raise WeightsError(
            f"config.json has {name} {_short(value)}; it must be positive and at most {LARGEST}; "
            "fetch or export it again"
        )


def _compression(content: Any) -> KVCompression | None:
    if content is None:
        return None
    if not isinstance(content, Mapping):
        raise WeightsError(
            f"config.json has kv_compression {_short(content)}, not an object; export it again"
        )
    unknown = sorted(content.keys() - KVCompression.__dataclass_fields__.keys())
    if unknown:
        raise WeightsError(
            f"config.json has kv_compression {_short(unknown[0])}, which is unknown; export it again"
        )
    for name, lengths in (("window", (2,)), ("blocks", None), ("from_tokens", (1,))):
        value = content.get(name, 0 if name == "from_tokens" else None)
        numbers = [value] if name == "from_tokens" else value
        whole = isinstance(numbers, list | tuple) and all(
            isinstance(number, int) and not isinstance(number, bool) and 0 <= number <= LARGEST
            for number in numbers
        )
        if not whole or (lengths is not None and len(numbers) not in lengths):
            raise WeightsError(f"config.json has kv_compression {name} {_short(value)}; export it again")
    if not isinstance(content.get("norm"), bool | None):
        raise WeightsError(f"config.json has kv_compression norm {_short(content['norm'])}; export it again")
    return KVCompression(**content)


def _short(value: Any) -> str:
    """As it was written, but not all of it."""
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def config_content(config: TransformerConfig) -> dict[str, Any]:
    """TransformerConfig → config.json's content, which diffusers reads too unless one of our keys is set."""
    content: dict[str, Any] = {"_class_name": class_entry(config)[1], **FIXED}
    content |= {key: getattr(config, key) for key in FIELDS}
    content |= {"cross_attention_dim": config.width, "use_additional_conditions": config.micro_conditioning}
    if config.qk_norm:
        content["qk_norm"] = True
    if config.kv_compression is not None:
        content["kv_compression"] = asdict(config.kv_compression)
    return dict(sorted(content.items()))


def class_entry(config: TransformerConfig) -> tuple[str, str]:
    """The library and the class that a pipeline's model_index.json names for such a transformer."""
    if config.qk_norm or config.kv_compression is not None:
        return OWN_CLASS_MODULE, OWN_CLASS_NAME
    return "diffusers", CLASS_NAME


def released_config(release: Release) -> TransformerConfig:
    """What the catalogue says of a release's transformer; the rest is the same for all of them."""
    return TransformerConfig(
        sample_size=release.sample_size,
        interpolation_scale=release.interpolation_scale,
        micro_conditioning=release.micro_conditioning,
    )
