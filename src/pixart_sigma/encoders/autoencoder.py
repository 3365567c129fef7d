"""Pixels ↔ latents, with diffusers' AutoencoderKL.

Legend: B images, H, W pixels, h, w latents (H / 8, W / 8), C latent channels.
Knows nothing of diffusion. Latents outside this file are scaled, so that their spread is about one.
"""

from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from pixart_sigma.encoders.pretrained import load_strictly


class Autoencoder:
    """A diffusers `AutoencoderKL` with its scaling."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.scaling_factor = float(model.config.scaling_factor)
        self.shift_factor = float(model.config.shift_factor or 0.0)

    @classmethod
    def from_pretrained(cls, folder: Path | str, dtype: torch.dtype = torch.float32) -> Self:
        """A pipeline folder with `vae/` → Autoencoder in eval mode on the CPU. Raises WeightsError."""
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        return cls(load_strictly(AutoencoderKL, Path(folder) / "vae", torch_dtype=dtype))

    def to(self, device: torch.device | str) -> Self:
        """Moves the model."""
        self.model.to(device)
        return self

    @property
    def latent_scale(self) -> int:
        """Pixels per latent along a side."""
        return int(2 ** (len(self.model.config.block_out_channels) - 1))

    def encode(self, pixels: Tensor) -> Tensor:
        """pixels (B, 3, H, W) in [-1, 1] → scaled latents (B, C, h, w), the posterior's mean."""
        mean = self.model.encode(pixels.to(self.model.dtype)).latent_dist.mode()
        return (mean - self.shift_factor) * self.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, C, h, w) → pixels (B, 3, H, W), about [-1, 1] and not clamped."""
        unscaled = latents.to(self.model.dtype) / self.scaling_factor + self.shift_factor
        return self.model.decode(unscaled, return_dict=False)[0]
