"""The autoencoder task: diffusers' AutoencoderKL on random crops of drawn scenes.

Legend: B batch, C latent channels, H, W pixels, h, w latents, N latent vectors.

At the end the latents are whitened: a linear map z' = A (z - μ), with A from the latents' own covariance, is folded
into the encoder's last 1x1 convolution and its inverse into the decoder's first. Reconstructions stay the same, but
channels then have zero mean, unit variance and no correlation, so the diffusion model sees noise and signal on one
scale in every channel, and `scaling_factor` is 1. Of the posterior's log variance folding can move only a constant
per channel, which is the mean change. Knows nothing of captions or diffusion.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pixart_sigma.data.drawn import FIRST_VALIDATION_SEED, ImagePool, image_pool
from pixart_sigma.data.latents import to_pixels
from pixart_sigma.pipeline.text_to_image import to_uint8
from pixart_sigma.training.draws import keyed_generator
from pixart_sigma.training.pictures import save_grid
from pixart_sigma.training.progress import report_stage
from pixart_sigma.training.recipe import AutoencoderModelRecipe, AutoencoderRecipe

_GRID_IMAGES = 8
_WHITENING_IMAGES = 512
_VALIDATION_BATCH = 16


def build_autoencoder(recipe: AutoencoderModelRecipe, sample_size: int) -> Any:
    """A fresh diffusers AutoencoderKL; the latent side is 1 / 2^(levels - 1) of the pixels'."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    levels = len(recipe.block_out_channels)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=recipe.block_out_channels,
        layers_per_block=recipe.layers_per_block,
        latent_channels=recipe.latent_channels,
        norm_num_groups=recipe.norm_num_groups,
        mid_block_add_attention=recipe.mid_block_add_attention,
        sample_size=sample_size,
        scaling_factor=1.0,
    )


class AutoencoderTask:
    """Random crops of scenes drawn at several sizes; the loss is L1 + MSE + gradients' L1 + a little KL."""

    def __init__(self, recipe: AutoencoderRecipe, output: Path, device: torch.device) -> None:
        self._recipe = recipe
        self._device = device
        torch.manual_seed(recipe.run.seed)
        self.model: nn.Module = build_autoencoder(recipe.model, recipe.crop_size).to(device)
        self._forward: Any = _reconstruct
        folder = output / recipe.pool.folder
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

    def compile(self) -> None:
        """One graph for encoder, posterior and decoder; crops all have one shape."""
        self._forward = torch.compile(_reconstruct)

    def loss(self, step: int) -> dict[str, Tensor]:
        """The terms of the batch of `step`; see AutoencoderLossRecipe."""
        weights = self._recipe.loss
        generator = keyed_generator(self._recipe.run.seed, step, "crops")
        pixels = to_pixels(self._crops(generator), self._device)
        side = self._recipe.crop_size // 2 ** (len(self._recipe.model.block_out_channels) - 1)
        shape = (len(pixels), self._recipe.model.latent_channels, side, side)
        noise = torch.randn(shape, generator=generator).to(self._device)
        reconstruction, mean, log_variance = self._forward(self.model, pixels, noise)
        with torch.autocast(self._device.type, enabled=False):
            error = reconstruction.float() - pixels
            absolute = error.abs().mean()
            squared = error.square().mean()
            gradient = (error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()) / 2
            mean, log_variance = mean.float(), log_variance.float()
            kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
            total = (
                weights.absolute * absolute
                + weights.squared * squared
                + weights.gradient * gradient
                + weights.kl * kl
            )
        return {"loss": total, "absolute": absolute, "squared": squared, "gradient": gradient, "kl": kl}

    def validate(self, step: int, folder: Path) -> dict[str, float]:
        """PSNR in dB on unseen scenes at each size; a grid of originals above reconstructions."""
        figures = {}
        for size, pool in self._validation.items():
            figures[f"psnr_{size}"] = self._psnr(pool)
            pixels = to_pixels(pool.images[:_GRID_IMAGES], self._device)
            pairs = torch.cat([pixels, self._mean_reconstruction(pixels)])
            save_grid(pairs, _GRID_IMAGES, folder / f"step-{step:08d}-{size}.png")
        return figures

    def export(self, folder: Path) -> dict[str, float]:
        """Whiten, write `vae/` in bf16, and report PSNR and the latents' statistics as the file gives them."""
        whole: Any = copy.deepcopy(self.model)
        num = _WHITENING_IMAGES // len(self._training)
        posteriors = [self._posterior(whole, pool.images[:num]) for pool in self._training.values()]
        latents, log_variances = (torch.cat(parts) for parts in zip(*posteriors, strict=True))
        whiten(whole, latents, log_variances)
        whole.to(torch.bfloat16).save_pretrained(folder / "vae")
        live, self.model = self.model, whole.float()
        figures = {f"psnr_{size}": self._psnr(pool) for size, pool in self._validation.items()}
        for size, pool in self._validation.items():
            vectors, _ = self._posterior(self.model, pool.images)
            figures[f"latent_std_{size}"] = float(vectors.std())
            figures[f"latent_mean_{size}"] = float(vectors.mean())
        self.model = live
        return figures

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

    def _psnr(self, pool: ImagePool) -> float:
        ratios = []
        for first in range(0, len(pool.images), _VALIDATION_BATCH):
            pixels = to_pixels(pool.images[first : first + _VALIDATION_BATCH], self._device)
            ratios.append(psnr(to_uint8(self._mean_reconstruction(pixels)), to_uint8(pixels)))
        return float(torch.cat(ratios).mean())

    def _mean_reconstruction(self, pixels: Tensor) -> Tensor:
        model: Any = self.model
        reconstruction: Tensor = model.decode(model.encode(pixels).latent_dist.mode()).sample
        return reconstruction

    def _posterior(self, model: Any, images: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
        """Means and log variances (N, C) float64 of images (B, H, W, 3)."""
        means, log_variances = [], []
        for first in range(0, len(images), _VALIDATION_BATCH):
            pixels = to_pixels(images[first : first + _VALIDATION_BATCH], self._device)
            posterior = model.encode(pixels).latent_dist
            means.append(posterior.mean.movedim(1, -1).flatten(0, -2).double().cpu())
            log_variances.append(posterior.logvar.movedim(1, -1).flatten(0, -2).double().cpu())
        return torch.cat(means), torch.cat(log_variances)


def psnr(images: Tensor, originals: Tensor) -> Tensor:
    """Two (B, H, W, 3) uint8 → (B,) dB; 99 for equal images."""
    squared = (images.float() - originals.float()).square().flatten(1).mean(1)
    return 10 * torch.log10(255.0**2 / squared.clamp(min=255.0**2 / 10**9.9))


def whiten(model: Any, latents: Tensor, log_variances: Tensor) -> None:
    """Fold whitening into an AutoencoderKL in place; latents, log_variances (N, C): means and log variances.

    A is the symmetric inverse square root of the covariance, which changes the channels as little as can be.
    """
    device = model.quant_conv.weight.device
    mean = latents.mean(0)
    variances, directions = torch.linalg.eigh(torch.cov(latents.T))
    forward = directions @ torch.diag(variances.rsqrt()) @ directions.T
    backward = directions @ torch.diag(variances.sqrt()) @ directions.T
    spread = log_variances.exp().mean(0)
    shift = (forward.square() @ spread).log() - spread.log()

    channels = len(mean)
    encoder, decoder = model.quant_conv, model.post_quant_conv
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


def _reconstruct(model: Any, pixels: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    mean, log_variance = model.quant_conv(model.encoder(pixels)).chunk(2, dim=1)
    log_variance = log_variance.clamp(-30, 20)
    latents = mean + noise * (0.5 * log_variance).exp()
    return model.decoder(model.post_quant_conv(latents)), mean, log_variance


def _pool(folder: Path, first_seed: int, num_scenes: int, size: int) -> ImagePool:
    return image_pool(folder, first_seed, num_scenes, size, size, report_stage(f"drawing {folder.name}"))
