"""The weights in the package: that they are whole, small, and know the drawn world."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pixart_sigma import TextToImage
from pixart_sigma.data.drawn import FIRST_VALIDATION_SEED, draw_scenes
from pixart_sigma.evaluation.judges.checker import load_checker, read

POCKET = Path(str(files("pixart_sigma").joinpath("pocket")))
LEAST_PSNR = 30.0


@pytest.fixture(scope="module")
def pocket() -> TextToImage:
    return TextToImage.from_pretrained("pocket")


def test_the_weights_are_small_and_have_a_card() -> None:
    sizes = [path.stat().st_size for path in POCKET.rglob("*") if path.is_file()]
    assert sum(sizes) <= 24e6
    num_weights, dtypes = {}, set()
    for path in POCKET.rglob("*.safetensors"):
        tensors = load_file(path)
        num_weights[path.parent.name] = sum(tensor.numel() for tensor in tensors.values())
        dtypes |= {tensor.dtype for tensor in tensors.values()}
    assert dtypes == {torch.bfloat16}
    assert num_weights["text_encoder"] + num_weights["vae"] <= 2.8e6
    assert (POCKET / "README.md").is_file()


@pytest.fixture(scope="module")
def unseen() -> Tensor:
    """Scenes that were never trained on: (8, 3, 256, 256) in [-1, 1]."""
    pictures = np.concatenate([images for _, images, _ in draw_scenes(FIRST_VALIDATION_SEED, 8, 256, 256)])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1


def test_the_autoencoder_reconstructs_unseen_scenes(pocket: TextToImage, unseen: Tensor) -> None:
    with torch.no_grad():
        reconstruction = pocket.autoencoder.decode(pocket.autoencoder.encode(unseen)).clamp(-1, 1)
    errors = (reconstruction - unseen).square().mean((1, 2, 3))
    assert float((10 * torch.log10(4 / errors)).mean()) >= LEAST_PSNR


def test_latents_have_about_unit_spread(pocket: TextToImage, unseen: Tensor) -> None:
    with torch.no_grad():
        latents = pocket.autoencoder.encode(unseen)
    assert float(latents.std()) == pytest.approx(1, abs=0.1)
    assert float(latents.mean()) == pytest.approx(0, abs=0.1)


def test_it_serves_256_to_1024_pixels(pocket: TextToImage) -> None:
    """By default the smallest; positions span the same at every size; only large grids are compressed."""
    config = pocket.transformer.config
    assert pocket.base_resolution == 256
    assert config.base_grid / config.interpolation_scale == 32
    assert config.kv_compression is not None
    assert not config.kv_compression.applies((32, 32))
    assert config.kv_compression.applies((64, 64))


def test_it_draws_what_simple_prompts_ask_for(pocket: TextToImage) -> None:
    """By the checker: every background, and nearly every thing with its colour; it is not perfect."""
    asked = [
        ("cactus", "green", "in the desert", "desert"),
        ("house", "red", "in the snow", "snow"),
        ("boat", "blue", "at a lake", "lake"),
        ("balloon", "yellow", "on a meadow", "meadow"),
        ("ball", "purple", "in a room", "room"),
        ("star", "white", "in space", "space"),
    ]
    result = pocket([f"a {colour} {kind} {where}" for kind, colour, where, _ in asked], num_steps=10, seed=0)
    readings = read(load_checker(), np.stack([np.asarray(picture) for picture in result.images]))
    assert [reading.background for reading in readings] == [background for *_, background in asked]
    right = sum(
        kind in reading.things and reading.things[kind].colour == colour
        for (kind, colour, *_), reading in zip(asked, readings, strict=True)
    )
    assert right >= 4
