"""Pixels ↔ latents, with their scale, whole or taken apart.

Legend: B images, H, W pixels, h, w latents (H / 8, W / 8), C latent channels.
Knows nothing of diffusion. Latents outside this file are scaled, so that their spread is about one.
"""

from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from pixart_sigma.encoders.autoencoder_memory import fitting_tile, kept_bytes, limit_of_one
from pixart_sigma.encoders.blended_tiles import decode_blended, encode_blended
from pixart_sigma.encoders.kl_autoencoder import KLAutoencoder
from pixart_sigma.encoders.kl_autoencoder_files import load_autoencoder
from pixart_sigma.encoders.strips.coding import OnProgress, decode_in_strips, encode_in_strips
from pixart_sigma.encoders.tiling import Tiling


class Autoencoder:
    """A `KLAutoencoder` with its scaling."""

    def __init__(self, model: KLAutoencoder, tiling: Tiling | None = None) -> None:
        """tiling: how pictures are taken apart; None takes them as a whole. The model may be another's too."""
        self.model = model
        self.tiling = tiling
        self.scaling_factor = float(model.config.scaling_factor)
        self.shift_factor = float(model.config.shift_factor or 0.0)

    @classmethod
    def from_pretrained(
        cls, folder: Path | str, dtype: torch.dtype = torch.float32, tiling: Tiling | None = None
    ) -> Self:
        """A pipeline folder with `vae/` → Autoencoder in eval mode on the CPU. Raises WeightsError."""
        return cls(load_autoencoder(Path(folder) / "vae", dtype), tiling)

    def to(self, device: torch.device | str) -> Self:
        """Moves the model; on a CPU it is in channels-last order, in which convolutions copy nothing there.

        Elsewhere norms give the usual order, whatever they are given, and weights in another would have it copied.
        """
        on_cpu = torch.device(device).type == "cpu"
        order = torch.channels_last if on_cpu else torch.contiguous_format
        self.model.to(device).to(memory_format=order)
        return self

    @property
    def latent_scale(self) -> int:
        """Pixels per latent along a side."""
        return self.model.config.pixels_per_latent

    def encode(self, pixels: Tensor) -> Tensor:
        """pixels (B, 3, H, W) in [-1, 1] → scaled latents (B, C, h, w), the posterior's mean.

        Raises InvalidInput for a limit that cannot be met, and so does decode; both without gradients if tiled.
        """
        pixels = pixels.to(self.model.dtype)
        if self.tiling is None:
            mean, _ = self.model.encode(pixels)
        else:
            mean = torch.cat([self._encode_tiled(one, self.tiling) for one in pixels.split(1)])
        return (mean - self.shift_factor) * self.scaling_factor

    def decode(self, latents: Tensor, on_progress: OnProgress | None = None) -> Tensor:
        """Scaled latents (B, C, h, w) → pixels (B, 3, H, W), about [-1, 1] and not clamped.

        on_progress: told after each strip what fraction is done, if exact tiling takes pictures apart.
        """
        unscaled = latents.to(self.model.dtype) / self.scaling_factor + self.shift_factor
        if self.tiling is None:
            return self.model.decode(unscaled)
        count, _, height, width = unscaled.shape
        kept = kept_bytes(self.model, height, width, count)
        if count == 1:
            return self._decode_tiled(unscaled, self.tiling, kept, on_progress)
        scale = self.latent_scale
        pixels = unscaled.new_empty(count, self.model.config.out_channels, height * scale, width * scale)
        for index, one in enumerate(unscaled.split(1)):
            share = one_of(on_progress, index, count)
            pixels[index] = self._decode_tiled(one, self.tiling, kept, share)[0]
        return pixels

    def _decode_tiled(
        self, latents: Tensor, tiling: Tiling, kept: int, on_progress: OnProgress | None
    ) -> Tensor:
        """One picture's latents, unscaled; kept: bytes of the limit that are in use already."""
        limit = limit_of_one(tiling, kept)
        if tiling.method == "exact":
            return decode_in_strips(
                self.model, latents, limit_bytes=limit, spill=tiling.spill, on_progress=on_progress
            )
        height, width = latents.shape[2:]
        return decode_blended(
            self.model, latents, fitting_tile(self.model, height, width, limit, latents.device)
        )

    def _encode_tiled(self, pixels: Tensor, tiling: Tiling) -> Tensor:
        """One picture → the posterior's mean, unscaled. What other pictures leave are latents, which are small."""
        limit = limit_of_one(tiling, 0)
        if tiling.method == "exact":
            return encode_in_strips(self.model, pixels, limit_bytes=limit, spill=tiling.spill)
        height, width = (side // self.latent_scale for side in pixels.shape[2:])
        # A tile that can be decoded can be encoded too, which takes less.
        return encode_blended(
            self.model, pixels, fitting_tile(self.model, height, width, limit, pixels.device)
        )


def one_of(on_progress: OnProgress | None, index: int, count: int) -> OnProgress | None:
    """Who is told of one picture's progress → who is told of its share in that of `count`."""
    if on_progress is None:
        return None
    return lambda fraction: on_progress((index + fraction) / count)
