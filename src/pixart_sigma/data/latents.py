"""Pools of latents of drawn scenes: drawn, encoded and cached without keeping the pixels.

Legend: N scenes, C latent channels, h, w latents.

    folder/latents.npy    (N, C, h, w) fp16: the posterior's mean, unscaled
    folder/scenes.jsonl   as in a pool of images
    folder/pool.json      written last; holds the digest of the autoencoder's weights

Knows nothing of the transformer, and does not scale.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixart_sigma.data.drawn import Report, SceneRecord, open_pool
from pixart_sigma.encoders.autoencoder import Autoencoder


@dataclass(frozen=True)
class LatentPool:
    """A finished pool: latents (N, C, h, w) fp16, unscaled, and as many records."""

    latents: NDArray[np.float16]
    records: list[SceneRecord]


def to_pixels(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    """images (B, H, W, 3) uint8 → (B, 3, H, W) fp32 in [-1, 1]."""
    stacked = torch.from_numpy(np.array(images)).to(device)
    return stacked.permute(0, 3, 1, 2).float() / 127.5 - 1


def autoencoder_digest(folder: Path) -> str:
    """A digest of the weights in `folder/vae`."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted((folder / "vae").glob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def latent_pool(
    folder: Path,
    autoencoder: Autoencoder,
    digest: str,
    first_seed: int,
    num_scenes: int,
    height: int,
    width: int,
    report: Report | None = None,
) -> LatentPool:
    """Open the pool in `folder`, or make it if it is missing or was made from other scenes or by other weights.

    `digest` is `autoencoder_digest` of the autoencoder given; `report(done, total)` is called now and then.
    """
    scale = autoencoder.latent_scale
    channels = int(autoencoder.model.config.latent_channels)
    array, records = open_pool(
        folder / "latents.npy",
        np.dtype(np.float16),
        (channels, height // scale, width // scale),
        lambda images: _unscaled_latents(autoencoder, images),
        {"autoencoder": digest},
        first_seed,
        num_scenes,
        height,
        width,
        report,
    )
    return LatentPool(array, records)


def _unscaled_latents(autoencoder: Autoencoder, images: NDArray[np.uint8]) -> NDArray[np.float16]:
    model = autoencoder.model
    pixels = to_pixels(images, model.device)
    # bf16 halves the time; its rounding is far below the autoencoder's own error.
    with torch.no_grad(), torch.autocast(model.device.type, torch.bfloat16):
        mean = model.encode(pixels).latent_dist.mode()
    latents: NDArray[np.float16] = mean.to(torch.float16).cpu().numpy()
    return latents
