"""The autoencoder of Stable Diffusion and SDXL (Rombach et al. 2022), in pure torch.

Legend: B images, H, W pixels, h, w latents, C latent channels, D channels of a layer.
Parameter names are those of diffusers' `AutoencoderKL`, and so is the arithmetic, to rounding. It is here because
importing that library takes longer than decoding a picture. Knows nothing of files, of the latents' scale, nor of
pictures that are taken apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixart_sigma.encoders.group_norm import GroupNorm
from pixart_sigma.products import Linear
from pixart_sigma.tiled_attention import attend

_NORM_EPSILON = 1e-6


@dataclass(frozen=True)
class AutoencoderConfig:
    """Sizes; names and defaults are those of diffusers' config.json."""

    block_out_channels: tuple[int, ...] = (64,)
    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 4
    layers_per_block: int = 1
    norm_num_groups: int = 32
    mid_block_add_attention: bool = True
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    sample_size: int = 32
    scaling_factor: float = 0.18215
    shift_factor: float | None = None

    @property
    def pixels_per_latent(self) -> int:
        """Along a side."""
        return int(2 ** (len(self.block_out_channels) - 1))


def _norm(channels: int, config: AutoencoderConfig) -> GroupNorm:
    return GroupNorm(config.norm_num_groups, channels, _NORM_EPSILON)


def _convolution(channels_in: int, channels_out: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1)


class ResidualBlock(nn.Module):
    """Norm, SiLU, convolution, twice; added to the input."""

    def __init__(self, channels_in: int, channels_out: int, config: AutoencoderConfig) -> None:
        super().__init__()
        self.norm1 = _norm(channels_in, config)
        self.conv1 = _convolution(channels_in, channels_out)
        self.norm2 = _norm(channels_out, config)
        self.conv2 = _convolution(channels_out, channels_out)
        self.conv_shortcut = nn.Conv2d(channels_in, channels_out, 1) if channels_in != channels_out else None

    def forward(self, states: Tensor) -> Tensor:
        """states (B, D, height, width) → (B, D', height, width)."""
        # A statement a layer, and in place where that is nobody's input: what was read is gone before the next one.
        added = F.silu(self.norm1(states), inplace=True)
        added = self.conv1(added)
        added = F.silu(self.norm2(added), inplace=True)
        added = self.conv2(added)
        return added.add_(states if self.conv_shortcut is None else self.conv_shortcut(states))


class Attention(nn.Module):
    """Each place attends to all, with one head; added to the input."""

    def __init__(self, channels: int, config: AutoencoderConfig) -> None:
        super().__init__()
        self.group_norm = _norm(channels, config)
        self.to_q = Linear(channels, channels)
        self.to_k = Linear(channels, channels)
        self.to_v = Linear(channels, channels)
        # The second slot is dropout in diffusers, of nothing; the name `to_out.0` remains.
        self.to_out = nn.ModuleList([Linear(channels, channels), nn.Identity()])

    def forward(self, states: Tensor) -> Tensor:
        """states (B, D, height, width) → the same."""
        places = self.group_norm(states).flatten(2).transpose(1, 2)
        queries, keys, values = (project(places)[:, None] for project in (self.to_q, self.to_k, self.to_v))
        attended = attend(queries, keys, values)[:, 0]
        return states + self.to_out[0](attended).transpose(1, 2).unflatten(2, states.shape[2:])


class Downsample(nn.Module):
    """A convolution with stride 2, padded at the bottom and the right alone."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel_size=3, stride=2)

    def forward(self, states: Tensor) -> Tensor:
        """states (B, D, height, width) → (B, D, height / 2, width / 2)."""
        return self.conv(F.pad(states, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Every place four times, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = _convolution(channels, channels)

    def forward(self, states: Tensor) -> Tensor:
        """states (B, D, height, width) → (B, D, 2 height, 2 width)."""
        if torch.is_grad_enabled():
            return self.conv(F.interpolate(states, scale_factor=2.0, mode="nearest"))
        return convolved_in_double_size(states, self.conv)


class Middle(nn.Module):
    """Two residual blocks, and between them attention, if there is any."""

    def __init__(self, channels: int, config: AutoencoderConfig) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResidualBlock(channels, channels, config) for _ in range(2))
        self.attentions = nn.ModuleList(
            [Attention(channels, config)] if config.mid_block_add_attention else []
        )

    def layers(self) -> Iterator[nn.Module]:
        """In the order in which they run; so do those of the other parts."""
        yield from (self.resnets[0], *self.attentions, self.resnets[1])


class DownLevel(nn.Module):
    """Residual blocks at one size, then half the size, but for the last level."""

    def __init__(self, channels_in: int, channels_out: int, config: AutoencoderConfig, last: bool) -> None:
        super().__init__()
        widths = [channels_in, *[channels_out] * config.layers_per_block]
        self.resnets = nn.ModuleList(ResidualBlock(*pair, config) for pair in pairwise(widths))
        self.downsamplers = nn.ModuleList([] if last else [Downsample(channels_out)])

    def layers(self) -> Iterator[nn.Module]:
        yield from (*self.resnets, *self.downsamplers)


class UpLevel(nn.Module):
    """Residual blocks at one size, one more than in the encoder, then double the size, but for the last level."""

    def __init__(self, channels_in: int, channels_out: int, config: AutoencoderConfig, last: bool) -> None:
        super().__init__()
        widths = [channels_in, *[channels_out] * (config.layers_per_block + 1)]
        self.resnets = nn.ModuleList(ResidualBlock(*pair, config) for pair in pairwise(widths))
        self.upsamplers = nn.ModuleList([] if last else [Upsample(channels_out)])

    def layers(self) -> Iterator[nn.Module]:
        yield from (*self.resnets, *self.upsamplers)


class Encoder(nn.Module):
    """Pixels → mean and log variance."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths = config.block_out_channels
        self.conv_in = _convolution(config.in_channels, widths[0])
        self.down_blocks = nn.ModuleList(
            DownLevel(before, width, config, last=index == len(widths) - 1)
            for index, (before, width) in enumerate(pairwise((widths[0], *widths)))
        )
        self.mid_block = Middle(widths[-1], config)
        self.conv_norm_out = _norm(widths[-1], config)
        self.conv_out = _convolution(widths[-1], 2 * config.latent_channels)

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels (B, 3, H, W) → (B, 2C, h, w)."""
        states = self.conv_in(pixels)
        for part in (*self.down_blocks, self.mid_block):
            for layer in part.layers():
                states = layer(states)
        return self.conv_out(F.silu(self.conv_norm_out(states), inplace=True))


class Decoder(nn.Module):
    """Latents → pixels."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths = config.block_out_channels[::-1]
        self.conv_in = _convolution(config.latent_channels, widths[0])
        self.mid_block = Middle(widths[0], config)
        self.up_blocks = nn.ModuleList(
            UpLevel(before, width, config, last=index == len(widths) - 1)
            for index, (before, width) in enumerate(pairwise((widths[0], *widths)))
        )
        self.conv_norm_out = _norm(widths[-1], config)
        self.conv_out = _convolution(widths[-1], config.out_channels)

    def forward(self, latents: Tensor) -> Tensor:
        """latents (B, C, h, w) → (B, 3, H, W)."""
        states = self.conv_in(latents)
        for part in (self.mid_block, *self.up_blocks):
            # Layer by layer, so that no level's input is kept for as long as the level runs.
            for layer in part.layers():
                states = layer(states)
        return self.conv_out(F.silu(self.conv_norm_out(states), inplace=True))


def convolved_in_double_size(states: Tensor, conv: nn.Conv2d) -> Tensor:
    """What a 3 x 3 convolution makes of states (B, D, height, width) with every place repeated to 2 x 2, to rounding.

    Of its nine values at most four differ: four convolutions of 2 x 2, one for each place of four, see them once.
    They take 16 products where the repeated ones take 36, and nothing of double size is made but the result.
    """
    return double_size_of_padded(F.pad(states, (1, 1, 1, 1)), conv)


def double_size_of_padded(padded: Tensor, conv: nn.Conv2d) -> Tensor:
    """`convolved_in_double_size`, of states (B, D, height + 2, width + 2) that have their border of zeros, or rows of
    their neighbours instead.
    """
    batch, _, height, width = padded.shape
    last = padded.is_contiguous(memory_format=torch.channels_last)
    order = torch.channels_last if last else torch.contiguous_format
    doubled = torch.empty(
        (batch, conv.out_channels, 2 * (height - 2), 2 * (width - 2)),
        dtype=padded.dtype,
        device=padded.device,
        memory_format=order,
    )
    for row, of_row in enumerate(_halves(conv.weight.float(), dim=2)):
        for column, kernel in enumerate(_halves(of_row, dim=3)):
            seen = padded[:, :, row : row + height - 1, column : column + width - 1]
            kernel = kernel.to(conv.weight.dtype).contiguous(memory_format=order)
            doubled[:, :, row::2, column::2] = F.conv2d(seen, kernel, conv.bias)
    return doubled


def _halves(kernel: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Three weights along an axis, of which the places before and after a pair see two: those of either place."""
    first, second, third = kernel.unbind(dim)
    return torch.stack([first, second + third], dim), torch.stack([first + second, third], dim)


class KLAutoencoder(nn.Module):
    """Encoder and decoder, and a 1 x 1 convolution of the latents beside each, if there is one."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        channels = config.latent_channels
        self.quant_conv = nn.Conv2d(2 * channels, 2 * channels, 1) if config.use_quant_conv else None
        self.post_quant_conv = nn.Conv2d(channels, channels, 1) if config.use_post_quant_conv else None

    @property
    def device(self) -> torch.device:
        return self.decoder.conv_in.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.decoder.conv_in.weight.dtype

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """pixels (B, 3, H, W) in -1 … 1 → the posterior's mean and log variance, (B, C, h, w) each, unscaled."""
        moments = self.encoder(pixels)
        if self.quant_conv is not None:
            moments = self.quant_conv(moments)
        mean, log_variance = moments.chunk(2, dim=1)
        return mean, log_variance

    def decode(self, latents: Tensor) -> Tensor:
        """Unscaled latents (B, C, h, w) → pixels (B, 3, H, W), about -1 … 1."""
        if self.post_quant_conv is not None:
            latents = self.post_quant_conv(latents)
        pixels: Tensor = self.decoder(latents)
        return pixels
