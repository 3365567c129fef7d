"""Autoencoders with random weights, for tests that need more than one layout."""

from typing import Any

import torch
from torch import nn

from pixart_sigma.encoders.kl_autoencoder import AutoencoderConfig, KLAutoencoder


def random_autoencoder(
    widths: tuple[int, ...] = (8, 8, 16),
    layers: int = 1,
    attention: bool = True,
    groups: int = 4,
    **options: Any,
) -> KLAutoencoder:
    """In eval mode, in channels-last order as loaded ones, with random norms: as made, they are the identity."""
    config = AutoencoderConfig(
        block_out_channels=widths,
        layers_per_block=layers,
        norm_num_groups=groups,
        mid_block_add_attention=attention,
        **options,
    )
    model = KLAutoencoder(config).eval().to(memory_format=torch.channels_last)
    for module in model.modules():
        if isinstance(module, nn.GroupNorm):
            nn.init.normal_(module.weight, 1.0, 0.3)
            nn.init.normal_(module.bias, 0.0, 0.3)
    return model


def pocket_autoencoder() -> KLAutoencoder:
    """The shape of the package's own."""
    return random_autoencoder((32, 48, 80, 80), attention=False, groups=8)


def sdxl_autoencoder() -> KLAutoencoder:
    """The real shape, 84 million random weights."""
    return random_autoencoder((128, 256, 512, 512), layers=2, groups=32)
