"""Autoencoders of diffusers' class, with random weights, for tests that need more than one layout."""

from typing import Any

from torch import nn


def random_autoencoder(
    widths: tuple[int, ...] = (8, 8, 16),
    layers: int = 1,
    attention: bool = True,
    groups: int = 4,
    **options: Any,
) -> Any:
    """An `AutoencoderKL` in eval mode whose norms, too, are random: as made, they are the identity."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=widths,
        layers_per_block=layers,
        norm_num_groups=groups,
        mid_block_add_attention=attention,
        **options,
    ).eval()
    for module in model.modules():
        if isinstance(module, nn.GroupNorm):
            nn.init.normal_(module.weight, 1.0, 0.3)
            nn.init.normal_(module.bias, 0.0, 0.3)
    return model


def pocket_autoencoder() -> Any:
    """The shape of the package's own."""
    return random_autoencoder((32, 48, 80, 80), attention=False, groups=8)


def sdxl_autoencoder() -> Any:
    """The real shape, 84 million random weights."""
    return random_autoencoder((128, 256, 512, 512), layers=2, groups=32)
