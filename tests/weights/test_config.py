import json
from dataclasses import replace

import pytest

from pixart_sigma.errors import WeightsError
from pixart_sigma.model.config import KVCompression, TransformerConfig
from pixart_sigma.weights.config import config_content, transformer_config
from tiny_pipeline import TRANSFORMER

RELEASED_SIGMA_1024 = {
    "_class_name": "PixArtTransformer2DModel",
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "attention_head_dim": 72,
    "caption_channels": 4096,
    "cross_attention_dim": 1152,
    "dropout": 0.0,
    "in_channels": 4,
    "interpolation_scale": 2,
    "norm_elementwise_affine": False,
    "norm_eps": 1e-06,
    "norm_num_groups": 32,
    "norm_type": "ada_norm_single",
    "num_attention_heads": 16,
    "num_embeds_ada_norm": 1000,
    "num_layers": 28,
    "out_channels": 8,
    "patch_size": 2,
    "sample_size": 128,
    "use_additional_conditions": False,
}


@pytest.mark.parametrize(
    "config",
    [
        TRANSFORMER,
        replace(TRANSFORMER, qk_norm=True, micro_conditioning=True),
        replace(TRANSFORMER, kv_compression=KVCompression((1, 2), "conv", (1, 3), norm=False)),
        replace(TRANSFORMER, kv_compression=KVCompression((3, 3), "nearest", (0,))),
    ],
)
def test_a_configuration_survives_its_file(config: TransformerConfig) -> None:
    content = json.loads(json.dumps(config_content(config)))
    assert transformer_config(content, ()) == config


def test_the_default_configuration_is_the_released_sigma_1024() -> None:
    assert transformer_config(RELEASED_SIGMA_1024, ()) == TransformerConfig()


def test_weights_decide_about_micro_conditioning_where_the_file_does_not() -> None:
    content = RELEASED_SIGMA_1024 | {"use_additional_conditions": None}
    assert not transformer_config(content, ()).micro_conditioning
    assert transformer_config(
        content, ("adaln_single.emb.resolution_embedder.linear_1.bias",)
    ).micro_conditioning


@pytest.mark.parametrize(("sample_size", "scale"), [(32, 1), (64, 1), (128, 2), (256, 4)])
def test_a_missing_interpolation_scale_is_that_of_diffusers(sample_size: int, scale: float) -> None:
    content = RELEASED_SIGMA_1024 | {"sample_size": sample_size, "interpolation_scale": None}
    assert transformer_config(content, ()).interpolation_scale == scale


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation_fn": "geglu"}, "activation_fn 'geglu', which is not PixArt's"),
        ({"norm_type": "ada_norm_zero"}, "norm_type 'ada_norm_zero', which is not PixArt's"),
        ({"caption_channels": None}, "no caption_channels"),
        ({"num_layers": 0}, "num_layers 0; it must be positive"),
        ({"kv_compression": {"window": [2, 2], "operator": "magic", "blocks": [1]}}, "magic"),
        ({"kv_compression": {"windows": [2, 2]}}, "windows"),
    ],
)
def test_another_models_configuration_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        transformer_config(RELEASED_SIGMA_1024 | change, ())


def test_a_size_that_is_no_number_is_refused() -> None:
    with pytest.raises(WeightsError, match="sample_size 'large', not a whole number"):
        transformer_config({**config_content(TRANSFORMER), "sample_size": "large"}, [])
