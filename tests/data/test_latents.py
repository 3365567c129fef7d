import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from comparison import relative_error
from pixart_sigma.data.latents import autoencoder_digest, latent_pool
from pixart_sigma.encoders.autoencoder import Autoencoder
from pixart_sigma.world import render, sample_scene


def test_cached_latents_are_the_unscaled_means(tiny_folder: Path, tmp_path: Path) -> None:
    autoencoder = Autoencoder.from_pretrained(tiny_folder)
    pool = latent_pool(tmp_path, autoencoder, "digest", 5, 2, 32, 48)
    assert (pool.latents.shape, pool.latents.dtype) == ((2, 4, 4, 6), np.float16)
    assert [record.seed for record in pool.records] == [5, 6]
    pixels = torch.tensor(render(sample_scene(6), 32, 48)).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = autoencoder.model.encode(pixels).latent_dist.mode()
    assert relative_error(torch.from_numpy(np.array(pool.latents[1:])).float(), expected.float()) <= 1e-3


def test_other_weights_encode_anew(tiny_folder: Path, tmp_path: Path) -> None:
    autoencoder = Autoencoder.from_pretrained(tiny_folder)
    before = np.array(latent_pool(tmp_path / "pool", autoencoder, "one", 0, 1, 32, 32).latents)
    with torch.no_grad():
        autoencoder.model.quant_conv.bias.add_(1.0)
    same = np.array(latent_pool(tmp_path / "pool", autoencoder, "one", 0, 1, 32, 32).latents)
    anew = np.array(latent_pool(tmp_path / "pool", autoencoder, "two", 0, 1, 32, 32).latents)
    assert np.array_equal(same, before)
    assert np.allclose(anew, before + 1, atol=0.05)


def test_the_digest_follows_the_weights(tiny_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_folder / "vae", tmp_path / "vae")
    assert autoencoder_digest(tmp_path) == autoencoder_digest(tiny_folder)
    path = tmp_path / "vae/diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["quant_conv.bias"][0] += 1
    save_file(weights, path)
    assert autoencoder_digest(tmp_path) != autoencoder_digest(tiny_folder)
