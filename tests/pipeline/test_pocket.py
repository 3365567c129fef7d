"""The weights in the package: that they are whole, small, and know the drawn world in its first edition.

The chain of recipes that makes their successors learns from the world as it is now; until these are in the package,
pictures of the first edition stand beside this file.
"""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from pixart_sigma import TextToImage

POCKET = Path(str(files("pixart_sigma").joinpath("pocket")))
LEAST_PSNR = 28.0


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
    """Scenes of the first edition that were never trained on: (8, 3, 256, 256) in [-1, 1]."""
    paths = sorted(Path(__file__).with_name("first_edition").glob("*.png"))
    pictures = np.stack([np.asarray(Image.open(path)) for path in paths])
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


@pytest.mark.parametrize(
    ("background", "red", "blue"),
    [("in the desert", 230, 160), ("on a meadow", 150, 245), ("in space", 30, 70)],
)
def test_the_sky_is_the_prompts(pocket: TextToImage, background: str, red: int, blue: int) -> None:
    picture = pocket(f"a large white ball in the middle {background}", num_steps=10, seed=1).images[0]
    sky = np.asarray(picture)[80:120, 5:40].reshape(-1, 3).mean(0)
    assert sky[0] == pytest.approx(red, abs=45)
    assert sky[2] == pytest.approx(blue, abs=45)


@pytest.mark.parametrize(("colour", "channel"), [("red", 0), ("green", 1), ("blue", 2)])
def test_the_thing_has_the_prompts_colour(pocket: TextToImage, colour: str, channel: int) -> None:
    picture = pocket(f"a large {colour} ball in the middle in the snow", num_steps=10, seed=1).images[0]
    middle = np.asarray(picture)[110:220, 80:176].reshape(-1, 3).astype(float)
    others = np.delete(middle, channel, axis=1).max(1)
    assert (middle[:, channel] > others + 40).mean() > 0.2
