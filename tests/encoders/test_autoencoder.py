from pathlib import Path

import pytest
import torch

from comparison import relative_error
from pixart_sigma.encoders.autoencoder import Autoencoder


@pytest.fixture(scope="module")
def autoencoder(tiny_folder: Path) -> Autoencoder:
    return Autoencoder.from_pretrained(tiny_folder)


@torch.no_grad()
def test_latents_are_shifted_and_scaled_means(autoencoder: Autoencoder) -> None:
    pixels = torch.rand(2, 3, 32, 48) * 2 - 1
    latents = autoencoder.encode(pixels)
    assert latents.shape == (2, 4, 4, 6)
    mean = autoencoder.model.encode(pixels).latent_dist.mean
    assert relative_error(latents, (mean - 0.25) * 0.5) <= 1e-6


@torch.no_grad()
def test_decoding_undoes_the_scaling(autoencoder: Autoencoder) -> None:
    unscaled = torch.randn(1, 4, 4, 6)
    pixels = autoencoder.decode((unscaled - 0.25) * 0.5)
    assert pixels.shape == (1, 3, 32, 48)
    assert relative_error(pixels, autoencoder.model.decode(unscaled).sample) <= 1e-5


def test_latent_scale_is_that_of_the_model(autoencoder: Autoencoder) -> None:
    assert autoencoder.latent_scale == 8
