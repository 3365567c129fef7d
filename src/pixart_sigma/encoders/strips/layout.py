"""A `KLAutoencoder` → its layers in the order in which they run, with their shapes.

Works on the meta device too, where a model has shapes only. Knows nothing of memory.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

from pixart_sigma.encoders.kl_autoencoder import (
    Attention,
    Decoder,
    Encoder,
    KLAutoencoder,
    Middle,
    ResidualBlock,
)
from pixart_sigma.encoders.strips.plan import Kind, Step


@dataclass(frozen=True)
class Layer:
    """A step and the modules that it computes with."""

    step: Step
    module: Any
    """The convolution, or the attention."""
    norm: nn.GroupNorm | None = None
    """GroupNorm of what it reads, followed by SiLU before a convolution."""
    shortcut: nn.Conv2d | None = None


def decoder_layers(model: KLAutoencoder, height: int, width: int) -> tuple[Layer, ...]:
    """The layers behind `post_quant_conv`, for latents (height, width)."""
    layers = _Layers("decoder", height, width)
    layers.convolve(model.decoder.conv_in, "conv_in")
    _middle(layers, model.decoder.mid_block)
    for index, level in enumerate(model.decoder.up_blocks):
        for number, block in enumerate(level.resnets):
            _resnet(layers, block, f"up_blocks.{index}.resnets.{number}")
        for number, upsampler in enumerate(level.upsamplers):
            layers.upsample(upsampler.conv, f"up_blocks.{index}.upsamplers.{number}")
    return _ending(layers, model.decoder)


def encoder_layers(model: KLAutoencoder, height: int, width: int) -> tuple[Layer, ...]:
    """The layers before `quant_conv`, for pixels (height, width)."""
    layers = _Layers("encoder", height, width)
    layers.convolve(model.encoder.conv_in, "conv_in")
    for index, level in enumerate(model.encoder.down_blocks):
        for number, block in enumerate(level.resnets):
            _resnet(layers, block, f"down_blocks.{index}.resnets.{number}")
        for number, downsampler in enumerate(level.downsamplers):
            layers.downsample(downsampler.conv, f"down_blocks.{index}.downsamplers.{number}")
    _middle(layers, model.encoder.mid_block)
    return _ending(layers, model.encoder)


class _Layers:
    """Layers so far, and the shape of what the last of them gives."""

    def __init__(self, part: str, height: int, width: int) -> None:
        self.part, self.height, self.width = part, height, width
        self.layers: list[Layer] = []

    def convolve(self, conv: nn.Conv2d, name: str, norm: nn.GroupNorm | None = None, **flags: bool) -> None:
        self._add("convolve", conv, name, self.height, self.width, norm=norm, **flags)

    def upsample(self, conv: nn.Conv2d, name: str) -> None:
        self._add("upsample", conv, name, 2 * self.height, 2 * self.width)

    def downsample(self, conv: nn.Conv2d, name: str) -> None:
        self._add("downsample", conv, name, self.height // 2, self.width // 2)

    def convolve_and_add(
        self, conv: nn.Conv2d, name: str, norm: nn.GroupNorm, added_channels: int, shortcut: nn.Conv2d | None
    ) -> None:
        flags = {"added_channels": added_channels, "has_shortcut": shortcut is not None}
        self._add("convolve", conv, name, self.height, self.width, norm=norm, shortcut=shortcut, **flags)

    def attend(self, attention: Attention, name: str) -> None:
        channels = attention.to_q.in_features
        step = Step(
            f"{self.part}.{name}",
            "attend",
            channels,
            self.height,
            self.width,
            channels,
            self.height,
            self.width,
        )
        self.layers.append(Layer(step, attention, attention.group_norm))

    def _add(
        self,
        kind: Kind,
        conv: nn.Conv2d,
        name: str,
        height: int,
        width: int,
        *,
        norm: nn.GroupNorm | None = None,
        shortcut: nn.Conv2d | None = None,
        **flags: Any,
    ) -> None:
        shape = (conv.in_channels, self.height, self.width, conv.out_channels, height, width)
        self.layers.append(Layer(Step(f"{self.part}.{name}", kind, *shape, **flags), conv, norm, shortcut))
        self.height, self.width = height, width


def _middle(layers: _Layers, middle: Middle) -> None:
    _resnet(layers, middle.resnets[0], "mid_block.resnets.0")
    for index, attention in enumerate(middle.attentions):
        layers.attend(attention, f"mid_block.attentions.{index}")
    _resnet(layers, middle.resnets[1], "mid_block.resnets.1")


def _resnet(layers: _Layers, block: ResidualBlock, name: str) -> None:
    layers.convolve(block.conv1, f"{name}.conv1", block.norm1, keeps_input=True)
    layers.convolve_and_add(
        block.conv2, f"{name}.conv2", block.norm2, block.conv1.in_channels, block.conv_shortcut
    )


def _ending(layers: _Layers, part: Encoder | Decoder) -> tuple[Layer, ...]:
    layers.convolve(part.conv_out, "conv_out", part.conv_norm_out, is_last=True)
    return tuple(layers.layers)
