"""Our autoencoder beside diffusers', and its files."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from comparison import relative_error
from pixart_sigma.encoders.kl_autoencoder import AutoencoderConfig, KLAutoencoder, convolved_in_double_size
from pixart_sigma.encoders.kl_autoencoder_files import config_content, load_autoencoder
from pixart_sigma.errors import WeightsError
from pixart_sigma.training.pipeline_folder import write_autoencoder
from random_autoencoders import random_autoencoder

SHAPES: list[dict[str, Any]] = [
    {},
    {"attention": False, "layers": 2},
    {"widths": (8, 12), "use_quant_conv": False, "use_post_quant_conv": False, "latent_channels": 3},
]


def theirs(folder: Path) -> Any:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    return AutoencoderKL.from_pretrained(folder, local_files_only=True)


@pytest.fixture(params=SHAPES, ids=str)
def model(request: pytest.FixtureRequest) -> KLAutoencoder:
    torch.manual_seed(0)
    return random_autoencoder(**request.param)


@torch.no_grad()
def test_it_computes_what_diffusers_computes(model: KLAutoencoder, tmp_path: Path) -> None:
    write_autoencoder(model, tmp_path)
    ours, expected = load_autoencoder(tmp_path), theirs(tmp_path)
    pixels = torch.rand(2, 3, 32, 24) * 2 - 1
    posterior = expected.encode(pixels).latent_dist
    mean, log_variance = ours.encode(pixels)
    assert relative_error(mean, posterior.mean) <= 1e-5
    assert relative_error(log_variance, posterior.logvar) <= 1e-5
    assert relative_error(ours.decode(mean), expected.decode(mean, return_dict=False)[0]) <= 1e-5


def test_gradients_are_those_of_diffusers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    write_autoencoder(random_autoencoder(), tmp_path)
    ours, expected = load_autoencoder(tmp_path), theirs(tmp_path)
    pixels = torch.rand(1, 3, 16, 16) * 2 - 1
    ours.decode(ours.encode(pixels)[0]).square().sum().backward()
    expected.decode(expected.encode(pixels).latent_dist.mode()).sample.square().sum().backward()
    wanted = dict(expected.named_parameters())
    for name, parameter in ours.named_parameters():
        # A key's bias moves all scores alike, and has no gradient but rounding.
        if not name.endswith("to_k.bias"):
            assert relative_error(parameter.grad, wanted[name].grad) <= 1e-3, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@torch.no_grad()
def test_a_convolution_in_double_size_sees_every_place_once(dtype: torch.dtype) -> None:
    """Odd sides and the borders too; in bf16 it errs no more than twice as much as the convolution itself."""
    torch.manual_seed(0)
    conv = nn.Conv2d(16, 24, 3, padding=1).to(dtype)
    states = torch.randn(2, 16, 7, 5).to(dtype)
    doubled = nn.functional.interpolate(states, scale_factor=2.0)
    exact = nn.functional.conv2d(doubled.double(), conv.weight.double(), conv.bias.double(), padding=1)
    found = convolved_in_double_size(states, conv)
    assert found.dtype == dtype
    if dtype == torch.float32:
        assert relative_error(found, exact) <= 1e-6
    else:
        error = relative_error(found, exact)
        assert error <= 2 * relative_error(conv(doubled), exact) <= 2e-2


@torch.no_grad()
def test_old_names_of_the_attention_are_known(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = random_autoencoder()
    write_autoencoder(model, tmp_path)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    new = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for name, tensor in load_file(path).items():
        for ours, old in new.items():
            name = name.replace(f"attentions.0.{ours}.", f"attentions.0.{old}.")
        renamed[name] = tensor
    assert any("proj_attn" in name for name in renamed)
    save_file(renamed, path)
    latents = torch.randn(1, 4, 4, 4)
    assert torch.equal(load_autoencoder(tmp_path).decode(latents), model.decode(latents))


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"act_fn": "gelu"}, "act_fn is 'gelu', not 'silu'"),
        ({"down_block_types": ["AttnDownEncoderBlock2D"] * 3}, "down_block_types is"),
        ({"latents_mean": [0.0]}, r"latents_mean is \[0.0\], not None"),
        ({"layers_per_block": 0}, "layers_per_block is 0"),
        ({"block_out_channels": 8}, "cannot be loaded"),
        ({"block_out_channels": [8, 8, 20]}, "does not fit"),
    ],
)
def test_another_kind_of_autoencoder_is_refused_in_one_line(
    changed: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    write_autoencoder(random_autoencoder(), tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(WeightsError, match=rf"^[^\n]*{problem}[^\n]*$"):
        load_autoencoder(tmp_path)


def test_a_loaded_one_is_in_channels_last_order(tmp_path: Path) -> None:
    write_autoencoder(random_autoencoder(), tmp_path)
    weight = load_autoencoder(tmp_path).decoder.conv_in.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_a_configuration_says_what_it_says() -> None:
    content = config_content(AutoencoderConfig((8, 16), norm_num_groups=4))
    assert content["up_block_types"] == ["UpDecoderBlock2D"] * 2
    assert content["block_out_channels"] == (8, 16)
