"""Patches, positions, timesteps and captions as vectors of the transformer's width.

Legend: B batch, N image tokens, D width, S timestep rows, T caption tokens (packed, no padding).
Knows nothing of attention, nor of which sizes are sensible.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixart_sigma.products import Linear

MAX_PERIOD = 10_000.0  # longest wavelength / 2π of every sinusoid here ("Attention is all you need", 3.5)
SINUSOID_CHANNELS = 256  # DiT: frequencies of the timestep embedding before its MLP


def timestep_sinusoid(values: Tensor) -> Tensor:
    """Cosines then sines of (S,) values, fractional ones included → (S, 256) fp32.

    fp32 whatever the model's dtype: in bf16 half of the 1000 timesteps would coincide.
    """
    half = SINUSOID_CHANNELS // 2
    exponents = torch.arange(half, dtype=torch.float32, device=values.device) / half
    angles = values.float()[:, None] * torch.exp(-math.log(MAX_PERIOD) * exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def _axis_embedding(length: int, span: float, channels: int, device: torch.device) -> Tensor:
    """Sines then cosines of `length` positions spread over [0, span) → (length, channels) float64."""
    dtype = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
    positions = torch.arange(length, dtype=dtype, device=device) * (span / length)
    half = channels // 2
    frequencies = MAX_PERIOD ** (-torch.arange(half, dtype=dtype, device=device) / half)
    angles = positions[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def position_embedding(
    grid: tuple[int, int],
    width: int,
    base_grid: int,
    interpolation_scale: float,
    device: torch.device,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Two-dimensional sin-cos embedding of a (height, width) token grid → (N, D), computed in float64 (fp32 on
    MPS), in which it stays unless dtype says otherwise.

    Each axis spans 0 … base_grid / interpolation_scale whatever its length, so a non-square grid stretches
    each axis by itself. The width axis has the first half of the channels (official layout).
    """
    rows, columns = grid
    span = base_grid / interpolation_scale
    # Cast before the axes become a grid: at 4K that would be 300 MB in float64.
    vertical = _axis_embedding(rows, span, width // 2, device).to(dtype)[:, None].expand(rows, columns, -1)
    horizontal = _axis_embedding(columns, span, width // 2, device).to(dtype)[None].expand(rows, columns, -1)
    return torch.cat([horizontal, vertical], dim=-1).flatten(0, 1)


class PatchEmbedding(nn.Module):
    """Latents cut in patches, each projected to the width."""

    def __init__(self, in_channels: int, width: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, width, kernel_size=patch_size, stride=patch_size)

    def forward(self, latents: Tensor) -> Tensor:
        """latents (B, C, H, W) → (B, N, D), row by row."""
        # Contiguous, or the whole residual stream inherits the convolution's channel-first memory order.
        return self.proj(latents).flatten(2).transpose(1, 2).contiguous()


class SinusoidEmbedder(nn.Module):
    """A scalar → sinusoid → two-layer MLP."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear_1 = Linear(SINUSOID_CHANNELS, channels)
        self.linear_2 = Linear(channels, channels)

    def forward(self, values: Tensor) -> Tensor:
        """values (S,) → (S, channels) in the weights' dtype."""
        # The bias: a quantised weight is stored in another type than it computes in.
        sinusoid = timestep_sinusoid(values).to(self.linear_1.bias.dtype)
        return self.linear_2(F.silu(self.linear_1(sinusoid)))


class ConditionEmbedding(nn.Module):
    """The timestep and, with micro-conditioning, image size and aspect ratio in one vector."""

    def __init__(self, width: int, micro_conditioning: bool) -> None:
        super().__init__()
        self.timestep_embedder = SinusoidEmbedder(width)
        if micro_conditioning:
            self.resolution_embedder = SinusoidEmbedder(width // 3)
            self.aspect_ratio_embedder = SinusoidEmbedder(width // 3)

    def forward(self, timesteps: Tensor, image_size: Tensor | None, aspect_ratio: Tensor | None) -> Tensor:
        """timesteps (S,), image_size (S, 2) pixels and aspect_ratio (S, 1), or both None → (S, D)."""
        embedding = self.timestep_embedder(timesteps)
        if image_size is None or aspect_ratio is None:
            return embedding
        size = self.resolution_embedder(image_size.flatten()).unflatten(0, image_size.shape).flatten(1)
        ratio = self.aspect_ratio_embedder(aspect_ratio.flatten())
        return embedding + torch.cat([size, ratio], dim=1)


class AdaLayerNormSingle(nn.Module):
    """adaLN-single (PixArt-α section 2.3): one projection makes six modulation rows for all blocks."""

    def __init__(self, width: int, micro_conditioning: bool) -> None:
        super().__init__()
        self.emb = ConditionEmbedding(width, micro_conditioning)
        self.linear = Linear(width, 6 * width)

    def forward(
        self, timesteps: Tensor, image_size: Tensor | None, aspect_ratio: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Inputs as for `ConditionEmbedding` → shared rows (S, 6, D), embedding (S, D)."""
        embedding = self.emb(timesteps, image_size, aspect_ratio)
        return self.linear(F.silu(embedding)).unflatten(1, (6, -1)), embedding


class CaptionProjection(nn.Module):
    """Text-encoder features → the transformer's width."""

    def __init__(self, caption_channels: int, width: int) -> None:
        super().__init__()
        self.linear_1 = Linear(caption_channels, width)
        self.linear_2 = Linear(width, width)

    def forward(self, caption_tokens: Tensor) -> Tensor:
        """(T, caption_channels) → (T, D)."""
        return self.linear_2(F.gelu(self.linear_1(caption_tokens), approximate="tanh"))
