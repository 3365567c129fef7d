"""The autoencoder task: a KL autoencoder on random crops of drawn scenes.

Legend: B batch, C latent channels, H, W pixels, h, w latents, N latent vectors.

At the end the latents are whitened: a linear map z' = A (z - μ), with A from the latents' own covariance, is folded
into the encoder's last 1x1 convolution and its inverse into the decoder's first. Reconstructions stay the same, but
channels then have zero mean, unit variance and no correlation, so the diffusion model sees noise and signal on one
scale in every channel, and `scaling_factor` is 1. Of the posterior's log variance folding can move only a constant
per channel, which is the mean change. Knows nothing of captions or diffusion.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pixart_sigma.data.drawn import FIRST_VALIDATION_SEED, ImagePool, image_pool
from pixart_sigma.data.images import to_pixels
from pixart_sigma.encoders.kl_autoencoder import AutoencoderConfig, KLAutoencoder
from pixart_sigma.pipeline.images import to_uint8
from pixart_sigma.pipeline.placement.processes import Processes
from pixart_sigma.training.draws import keyed_generator
from pixart_sigma.training.pipeline_folder import write_autoencoder
from pixart_sigma.training.recipe.small_models import (
    AutoencoderLossRecipe,
    AutoencoderModelRecipe,
    AutoencoderRecipe,
)
from pixart_sigma.training.tasks.parts import part_weights
from pixart_sigma.training.tasks.small import SmallTask
from pixart_sigma.training.watching.pictures import save_grid
from pixart_sigma.training.watching.progress import report_stage

_GRID_IMAGES = 8
_WHITENING_IMAGES = 512
_VALIDATION_BATCH = 16


def build_autoencoder(recipe: AutoencoderModelRecipe, sample_size: int) -> KLAutoencoder:
    """A fresh one; the latent side is 1 / 2^(levels - 1) of the pixels'."""
    config = AutoencoderConfig(
        block_out_channels=recipe.block_out_channels,
        layers_per_block=recipe.layers_per_block,
        latent_channels=recipe.latent_channels,
        norm_num_groups=recipe.norm_num_groups,
        mid_block_add_attention=recipe.mid_block_add_attention,
        sample_size=sample_size,
        scaling_factor=1.0,
    )
    return KLAutoencoder(config)


@dataclass(frozen=True)
class Crops:
    """pixels (B, 3, H, W) in [-1, 1], noise (B, C, h, w), and the factor of the samples' sum in the loss."""

    pixels: Tensor
    noise: Tensor
    share: float


class AutoencoderObjective(nn.Module):
    """An autoencoder and its loss: L1 + MSE + gradients' L1 + a little KL."""

    def __init__(self, autoencoder: KLAutoencoder, weights: AutoencoderLossRecipe) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self._weights = weights

    def forward(self, batch: Crops) -> dict[str, Tensor]:
        """Crops → the terms of the loss; see AutoencoderLossRecipe."""
        reconstruction, mean, log_variance = _reconstruct(self.autoencoder, batch.pixels, batch.noise)
        with torch.autocast(batch.pixels.device.type, enabled=False):
            error = reconstruction.float() - batch.pixels
            mean, log_variance = mean.float(), log_variance.float()
            gradient = _mean(error.diff(dim=-1).abs()) + _mean(error.diff(dim=-2).abs())
            terms = {
                "absolute": _mean(error.abs()),
                "squared": _mean(error.square()),
                "gradient": gradient / 2,
                "kl": 0.5 * _mean(mean.square() + log_variance.exp() - 1 - log_variance),
            }
            summed = {name: batch.share * value.sum() for name, value in terms.items()}
        return {"loss": sum_weighted(summed, self._weights), **summed}


def sum_weighted(terms: dict[str, Tensor], weights: AutoencoderLossRecipe) -> Tensor:
    """The terms' sum, each with its weight of the recipe."""
    return torch.stack([getattr(weights, name) * value for name, value in terms.items()]).sum()


def _mean(values: Tensor) -> Tensor:
    return values.flatten(1).mean(1)


class AutoencoderTask(SmallTask):
    """Random crops of scenes drawn at several sizes."""

    def __init__(self, recipe: AutoencoderRecipe, output: Path, processes: Processes) -> None:
        self._recipe = recipe
        self._device = processes.device
        torch.manual_seed(recipe.run.seed)
        model = build_autoencoder(recipe.model, recipe.crop_size).to(self._device)
        self.model: nn.Module = AutoencoderObjective(model, recipe.loss)
        folder = output / recipe.pool.folder
        with processes.first_goes_first():
            self._training = {
                size: _pool(folder / f"training-{size}", 0, recipe.pool.num_scenes, size)
                for size in recipe.image_sizes
            }
            self._validation = {
                size: _pool(
                    folder / f"validation-{size}", FIRST_VALIDATION_SEED, recipe.pool.num_validation, size
                )
                for size in recipe.image_sizes
            }

    def load(self, step: int, part: range) -> tuple[NDArray[np.uint8], Tensor]:
        """The crops and the posterior's noise."""
        run = self._recipe.run
        generator = keyed_generator(run.seed, step, "crops")
        crops = self._crops(generator)
        side = self._recipe.crop_size // 2 ** (len(self._recipe.model.block_out_channels) - 1)
        shape = (run.batch_size, self._recipe.model.latent_channels, side, side)
        noise = torch.randn(shape, generator=generator)
        return crops[part.start : part.stop], noise[part.start : part.stop]

    def batch(self, loaded: tuple[NDArray[np.uint8], Tensor], share: float) -> Crops:
        """On the device."""
        crops, noise = loaded
        return Crops(to_pixels(crops, self._device), noise.to(self._device), share)

    def record_ids(self, step: int, part: range) -> list[str]:
        """Crops are keyed by the step and their position."""
        return [f"crop-{step}-{position}" for position in part]

    def validate(self, step: int, folder: Path | None) -> dict[str, float]:
        """PSNR in dB on unseen scenes at each size; a grid of originals above reconstructions."""
        model = self._autoencoder
        figures = {}
        for size, pool in self._validation.items():
            figures[f"psnr_{size}"] = self._psnr(model, pool)
            if folder is not None:
                pixels = to_pixels(pool.images[:_GRID_IMAGES], self._device)
                pairs = torch.cat([pixels, _mean_reconstruction(model, pixels)])
                save_grid(pairs, _GRID_IMAGES, folder / f"step-{step:08d}-{size}.png")
        return figures

    @torch.no_grad()
    def export(
        self, folder: Path, weights: dict[str, Tensor], held_out: dict[str, float]
    ) -> dict[str, float]:
        """Whiten, write `vae/` in bf16, and report PSNR and the latents' statistics as the file gives them."""
        whole = build_autoencoder(self._recipe.model, self._recipe.crop_size)
        whole.load_state_dict(part_weights(weights, "autoencoder"))
        whole.eval().to(self._device)
        num = _WHITENING_IMAGES // len(self._training)
        posteriors = [self._posterior(whole, pool.images[:num]) for pool in self._training.values()]
        latents, log_variances = (torch.cat(parts) for parts in zip(*posteriors, strict=True))
        whiten(whole, latents, log_variances)
        write_autoencoder(whole.to(torch.bfloat16), folder / "vae")
        whole.float()
        figures = {f"psnr_{size}": self._psnr(whole, pool) for size, pool in self._validation.items()}
        for size, pool in self._validation.items():
            vectors, _ = self._posterior(whole, pool.images)
            figures[f"latent_std_{size}"] = float(vectors.std())
            figures[f"latent_mean_{size}"] = float(vectors.mean())
        return figures

    @property
    def _autoencoder(self) -> Any:
        return self.model.get_submodule("autoencoder")

    def _crops(self, generator: torch.Generator) -> NDArray[np.uint8]:
        run, side = self._recipe.run, self._recipe.crop_size
        sizes = list(self._training)
        draws = torch.rand(run.batch_size, 4, generator=generator, dtype=torch.float64).tolist()
        crops = []
        for which, scene, top, left in draws:
            size = sizes[int(which * len(sizes))]
            images = self._training[size].images
            room = size - side + 1
            row, column = int(top * room), int(left * room)
            crops.append(images[int(scene * len(images)), row : row + side, column : column + side])
        return np.stack(crops)

    def _psnr(self, model: KLAutoencoder, pool: ImagePool) -> float:
        ratios = []
        for first in range(0, len(pool.images), _VALIDATION_BATCH):
            pixels = to_pixels(pool.images[first : first + _VALIDATION_BATCH], self._device)
            ratios.append(psnr(to_uint8(_mean_reconstruction(model, pixels)), to_uint8(pixels)))
        return float(torch.cat(ratios).mean())

    def _posterior(self, model: KLAutoencoder, images: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
        """Means and log variances (N, C) float64 of images (B, H, W, 3)."""
        means: list[Tensor] = []
        log_variances: list[Tensor] = []
        for first in range(0, len(images), _VALIDATION_BATCH):
            pixels = to_pixels(images[first : first + _VALIDATION_BATCH], self._device)
            for posterior, kept in zip(_posterior_of(model, pixels), (means, log_variances), strict=True):
                kept.append(posterior.movedim(1, -1).flatten(0, -2).double().cpu())
        return torch.cat(means), torch.cat(log_variances)


def psnr(images: Tensor, originals: Tensor) -> Tensor:
    """Two (B, H, W, 3) uint8 → (B,) dB; 99 for equal images."""
    squared = (images.float() - originals.float()).square().flatten(1).mean(1)
    return 10 * torch.log10(255.0**2 / squared.clamp(min=255.0**2 / 10**9.9))


def whiten(model: KLAutoencoder, latents: Tensor, log_variances: Tensor) -> None:
    """Fold whitening into an autoencoder in place; latents, log_variances (N, C): means and log variances.

    A is the symmetric inverse square root of the covariance, which changes the channels as little as can be.
    """
    encoder, decoder = model.quant_conv, model.post_quant_conv
    assert encoder is not None
    assert decoder is not None
    device = model.device
    mean = latents.mean(0)
    variances, directions = torch.linalg.eigh(torch.cov(latents.T))
    forward = directions @ torch.diag(variances.rsqrt()) @ directions.T
    backward = directions @ torch.diag(variances.sqrt()) @ directions.T
    spread = log_variances.exp().mean(0)
    shift = (forward.square() @ spread).log() - spread.log()

    channels = len(mean)
    weight, bias = encoder.weight.data.double().cpu(), encoder.bias.data.double().cpu()
    weight[:channels] = torch.einsum("ij,jkhw->ikhw", forward, weight[:channels])
    bias[:channels] = forward @ (bias[:channels] - mean)
    bias[channels:] += shift
    encoder.weight.data.copy_(weight.to(device))
    encoder.bias.data.copy_(bias.to(device))
    weight, bias = decoder.weight.data.double().cpu(), decoder.bias.data.double().cpu()
    decoder.bias.data.copy_((bias + weight[:, :, 0, 0] @ mean).to(device))
    decoder.weight.data.copy_(
        torch.einsum("ij,jkhw->ikhw", weight[:, :, 0, 0], backward[..., None, None]).to(device)
    )


def _reconstruct(model: KLAutoencoder, pixels: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    mean, log_variance = _posterior_of(model, pixels)
    latents = mean + noise * (0.5 * log_variance).exp()
    return model.decode(latents), mean, log_variance


def _posterior_of(model: KLAutoencoder, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log variance; the latter within bounds that keep its exponential finite, as diffusers has them."""
    mean, log_variance = model.encode(pixels)
    return mean, log_variance.clamp(-30, 20)


def _mean_reconstruction(model: KLAutoencoder, pixels: Tensor) -> Tensor:
    return model.decode(model.encode(pixels)[0])


def _pool(folder: Path, first_seed: int, num_scenes: int, size: int) -> ImagePool:
    return image_pool(folder, first_seed, num_scenes, size, size, report_stage(f"drawing {folder.name}"))
