"""The transformer against the published code's outputs."""

import pytest
import torch

from comparison import load_golden, relative_error
from pixart_sigma.model import KVCompression, PixArtTransformer, TransformerConfig
from pixart_sigma.weights.keys import from_official

OPERATORS = {"conv": "conv", "uniform": "nearest"}


def golden_model(tensors, golden):
    compression = None
    if "kv_compress_config" in golden:
        given = golden["kv_compress_config"]
        compression = KVCompression(
            window=(given["scale_factor"],) * 2,
            operator=OPERATORS[given["sampling"]],
            blocks=tuple(given["kv_compress_layer"]),
        )
    config = TransformerConfig(
        num_layers=golden["depth"],
        num_attention_heads=golden["num_heads"],
        attention_head_dim=golden["hidden_size"] // golden["num_heads"],
        sample_size=golden["input_size"],
        caption_channels=golden["caption_channels"],
        interpolation_scale=golden["pe_interpolation"],
        micro_conditioning=golden.get("micro_condition", False),
        kv_compression=compression,
    )
    model = PixArtTransformer(config)
    official = {
        name.removeprefix("state_dict."): t for name, t in tensors.items() if name.startswith("state_dict.")
    }
    ours, leftovers = from_official(official)
    model.load_state_dict(ours, strict=True)
    assert set(leftovers) == {"pos_embed", "y_embedder.y_embedding"}
    return model


@pytest.mark.parametrize(
    "name",
    [
        "sigma_plain_square",
        "sigma_plain_wide",
        "sigma_kv_conv2_deep",
        "sigma_kv_uniform2_all",
        "alpha_micro_condition",
    ],
)
def test_golden(name):
    tensors, golden = load_golden(name)
    model = golden_model(tensors, golden)
    with torch.no_grad():
        captions = model.prepare_captions(
            tensors["input.caption_embeds"][:, 0], tensors["input.caption_mask"][:, 0, 0].bool()
        )
        timesteps = model.prepare_timesteps(
            tensors["input.timestep"], tensors.get("input.img_hw"), tensors.get("input.aspect_ratio")
        )
        output = model(tensors["input.latents"], captions, timesteps)
    assert relative_error(output, tensors["output"]) <= 1e-5
