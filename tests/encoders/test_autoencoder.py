import copy
from pathlib import Path

import pytest
import torch

from comparison import relative_error
from pixart_sigma.encoders.autoencoder import Autoencoder
from pixart_sigma.encoders.autoencoder_memory import least_decode_bytes, predict_decode_bytes
from pixart_sigma.encoders.blended_tiles import OVERLAP, decode_blended, encode_blended
from pixart_sigma.encoders.kl_autoencoder_files import config_content
from pixart_sigma.encoders.tiling import Tiling
from pixart_sigma.errors import InvalidInput

KIB = 1024


@pytest.fixture(scope="module")
def autoencoder(tiny_folder: Path) -> Autoencoder:
    return Autoencoder.from_pretrained(tiny_folder)


@torch.no_grad()
def test_latents_are_shifted_and_scaled_means(autoencoder: Autoencoder) -> None:
    pixels = torch.rand(2, 3, 32, 48) * 2 - 1
    latents = autoencoder.encode(pixels)
    assert latents.shape == (2, 4, 4, 6)
    mean = autoencoder.model.encode(pixels)[0]
    assert relative_error(latents, (mean - 0.25) * 0.5) <= 1e-6


@torch.no_grad()
def test_decoding_undoes_the_scaling(autoencoder: Autoencoder) -> None:
    unscaled = torch.randn(1, 4, 4, 6)
    pixels = autoencoder.decode((unscaled - 0.25) * 0.5)
    assert pixels.shape == (1, 3, 32, 48)
    assert relative_error(pixels, autoencoder.model.decode(unscaled)) <= 1e-5


def test_latent_scale_is_that_of_the_model(autoencoder: Autoencoder) -> None:
    assert autoencoder.latent_scale == 8


@torch.no_grad()
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("limit", [None, 384 * KIB])
def test_exact_tiling_changes_no_picture(
    autoencoder: Autoencoder, tiny_folder: Path, tmp_path: Path, count: int, limit: int | None
) -> None:
    tiled = Autoencoder.from_pretrained(
        tiny_folder, tiling=Tiling("exact", limit, tmp_path if limit is not None else None)
    )
    latents, pixels = torch.randn(count, 4, 12, 9), torch.rand(count, 3, 96, 72) * 2 - 1
    assert relative_error(tiled.decode(latents), autoencoder.decode(latents)) <= 1e-5
    assert relative_error(tiled.encode(pixels), autoencoder.encode(pixels)) <= 1e-5


@torch.no_grad()
def test_fast_tiling_differs_and_leaves_a_shared_model_as_it_is(autoencoder: Autoencoder) -> None:
    model = autoencoder.model
    before = copy.copy(vars(model))
    latents, pixels = torch.randn(1, 4, 64, 56), torch.rand(1, 3, 512, 448) * 2 - 1
    config = config_content(model.config)
    least = least_decode_bytes(config, 512, 448, 4, "fast")
    tiled = Autoencoder(model, Tiling("fast", least))
    decoded, encoded = tiled.decode(latents), tiled.encode(pixels)
    assert vars(model) == before
    assert decoded.shape == pixels.shape
    assert encoded.shape == latents.shape
    # Near the whole, and not equal to it.
    assert 1e-4 < relative_error(decoded, autoencoder.decode(latents)) < 1
    assert 1e-4 < relative_error(encoded, autoencoder.encode(pixels)) < 1
    # Tiles that hold all of a picture make it exactly.
    assert torch.equal(Autoencoder(model, Tiling("fast")).decode(latents), autoencoder.decode(latents))


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(40, 36), (33, 20), (8, 70)])
def test_tiles_are_laid_and_blended_as_diffusers_does_it(
    autoencoder: Autoencoder, tiny_folder: Path, height: int, width: int
) -> None:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    theirs = AutoencoderKL.from_pretrained(tiny_folder / "vae", local_files_only=True)
    theirs.enable_tiling()
    theirs.tile_latent_min_size, theirs.tile_sample_min_size, theirs.tile_overlap_factor = 16, 128, OVERLAP
    latents, pixels = torch.randn(1, 4, height, width), torch.rand(1, 3, 8 * height, 8 * width) * 2 - 1
    decoded = decode_blended(autoencoder.model, latents, 16)
    assert relative_error(decoded, theirs.decode(latents, return_dict=False)[0]) <= 1e-5
    encoded = encode_blended(autoencoder.model, pixels, 16)
    assert relative_error(encoded, theirs.encode(pixels).latent_dist.mode()) <= 1e-5


@pytest.mark.parametrize("method", ["exact", "fast"])
def test_a_batch_is_refused_when_its_pixels_leave_too_little(
    autoencoder: Autoencoder, tmp_path: Path, method: str
) -> None:
    config = config_content(autoencoder.model.config)
    spill = tmp_path if method == "exact" else None
    limits = [least_decode_bytes(config, 320, 256, 4, method, num_images=count) for count in (1, 2)]  # type: ignore[arg-type]
    assert limits[1] - limits[0] == 2 * 320 * 256 * 3 * 4
    tiling = Tiling(method, limits[0], spill)  # type: ignore[arg-type]
    assert predict_decode_bytes(config, 320, 256, 4, tiling) <= limits[0]
    Autoencoder(autoencoder.model, tiling).decode(torch.randn(1, 4, 40, 32))
    with pytest.raises(InvalidInput, match="too little"):
        Autoencoder(autoencoder.model, tiling).decode(torch.randn(2, 4, 40, 32))


def test_it_moves_with_its_model(tiny_folder: Path) -> None:
    tiled = Autoencoder.from_pretrained(tiny_folder, tiling=Tiling("fast"))
    assert tiled.to("meta") is tiled
    assert tiled.model.device.type == "meta"
