import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from comparison import relative_error
from pixart_sigma.data.images import to_pixels
from pixart_sigma.encoders.autoencoder import Autoencoder
from pixart_sigma.training.recipe.small_models import AutoencoderModelRecipe
from pixart_sigma.training.run import train
from pixart_sigma.training.tasks.autoencoder import build_autoencoder, psnr, whiten
from tiny_run import stored

TINY = AutoencoderModelRecipe(block_out_channels=(4, 4), norm_num_groups=2)
RUN = [
    "run.steps=4",
    "run.batch_size=2",
    "rate.warmup_steps=1",
    "run.checkpoint_every=2",
    "run.log_every=1",
    "run.validate_every=4",
    "pool.num_scenes=3",
    "pool.num_validation=2",
    "image_sizes=[32, 48]",
    "crop_size=16",
    "model.block_out_channels=[4, 4, 4, 4]",
    "model.norm_num_groups=2",
    "run.device=cpu",
]


@pytest.fixture
def autoencoder() -> Any:
    model = build_autoencoder(TINY, 16).eval()
    with torch.no_grad():
        # Make the channels unlike what whitening leaves: shifted, stretched and mixed.
        model.quant_conv.weight[:4].mul_(torch.tensor([0.2, 1.0, 3.0, 9.0])[:, None, None, None])
        model.quant_conv.bias[:4].add_(torch.tensor([1.0, -2.0, 0.5, 4.0]))
    return model


def test_whitened_latents_reconstruct_as_before(autoencoder: Any) -> None:
    pixels = torch.rand(6, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        mean, log_variance = autoencoder.encode(pixels)
        before = autoencoder.decode(mean)
        vectors = mean.movedim(1, -1).flatten(0, -2).double()
        log_variances = log_variance.movedim(1, -1).flatten(0, -2).double()
        whiten(autoencoder, vectors, log_variances)
        whitened = autoencoder.encode(pixels)[0]
        after = autoencoder.decode(whitened)
    assert relative_error(after, before) <= 1e-4
    rows = whitened.movedim(1, -1).flatten(0, -2).double()
    torch.testing.assert_close(rows.mean(0), torch.zeros(4).double(), atol=1e-3, rtol=0)
    torch.testing.assert_close(torch.cov(rows.T), torch.eye(4).double(), atol=1e-3, rtol=0)


def test_the_posterior_of_one_channel_scales_with_its_latents() -> None:
    model = build_autoencoder(TINY, 16)
    latents = torch.randn(1000, 4).double() * torch.tensor([0.1, 1.0, 2.0, 10.0])
    bias = model.quant_conv.bias.data[4:].clone()
    whiten(model, latents, torch.full((1000, 4), -3.0).double())
    shift = model.quant_conv.bias.data[4:] - bias
    # Dividing a channel by s lowers its log variance by 2 log s.
    expected = -2 * latents.std(0).log()
    torch.testing.assert_close(shift.double(), expected, atol=0.05, rtol=0.05)


def test_pixels_span_minus_one_to_one() -> None:
    images = np.array([0, 255], dtype=np.uint8).repeat(6).reshape(1, 2, 2, 3)
    pixels = to_pixels(images, torch.device("cpu"))
    assert pixels.shape == (1, 3, 2, 2)
    assert (pixels[0, :, 0] == -1).all()
    assert (pixels[0, :, 1] == 1).all()


def test_psnr() -> None:
    black = torch.zeros(1, 2, 2, 3, dtype=torch.uint8)
    assert psnr(black, black).item() == pytest.approx(99, abs=0.01)
    assert psnr(black + 255, black).item() == pytest.approx(0, abs=1e-4)
    assert psnr(black + 51, black).item() == pytest.approx(20 * np.log10(5), abs=1e-4)


def test_training_exports_an_autoencoder_and_resumes_exactly(tmp_path: Path) -> None:
    closing = train("pocket-autoencoder", tmp_path / "whole", RUN)
    assert {"psnr_32", "psnr_48"} <= closing.keys()
    loaded = Autoencoder.from_pretrained(tmp_path / "whole/export")
    assert loaded.scaling_factor == 1.0
    assert loaded.encode(torch.zeros(1, 3, 32, 32)).shape == (1, 4, 4, 4)
    assert (tmp_path / "whole/samples/step-00000004-48.png").exists()

    # Half of it, then the rest: the schedule knows the steps from the start, so it is cut by losing a checkpoint.
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut/checkpoints/step-00000004")
    shutil.rmtree(tmp_path / "cut/export")
    train("pocket-autoencoder", tmp_path / "cut", RUN, resume=True)
    whole, cut = stored(tmp_path / "whole"), stored(tmp_path / "cut")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    exported = "export/vae/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "cut" / exported).read_bytes() == (tmp_path / "whole" / exported).read_bytes()
