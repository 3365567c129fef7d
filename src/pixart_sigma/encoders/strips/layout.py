"""A diffusers `AutoencoderKL` → its layers in the order in which they run, with their shapes.

Knows the layout of the SD and SDXL autoencoders: 3 × 3 convolutions, GroupNorm and SiLU, residual blocks, nearest
upsampling, strided convolutions with a zero row and column at the bottom and right, one single-headed attention in
the middle. Whatever else a model has is an error, since it would be left out in silence. Works on the meta device
too, where a model has shapes only. Knows nothing of memory.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

from pixart_sigma.encoders.strips.plan import Kind, Step
from pixart_sigma.errors import WeightsError


@dataclass(frozen=True)
class Layer:
    """A step and the modules that it computes with."""

    step: Step
    module: Any
    """The convolution, or the attention."""
    norm: nn.GroupNorm | None = None
    """GroupNorm of what it reads, followed by SiLU before a convolution."""
    shortcut: nn.Conv2d | None = None


def expect_autoencoder(model: Any) -> None:
    """Raises WeightsError for anything but diffusers' class."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    _expect_type(model, AutoencoderKL, "the autoencoder")


def decoder_layers(model: Any, height: int, width: int) -> tuple[Layer, ...]:
    """The layers behind `post_quant_conv`, for latents (height, width). Raises WeightsError."""
    from diffusers.models.autoencoders.vae import Decoder
    from diffusers.models.unets.unet_2d_blocks import UpDecoderBlock2D
    from diffusers.models.upsampling import Upsample2D

    expect_autoencoder(model)
    decoder = model.decoder
    _expect_type(decoder, Decoder, "decoder")
    _expect_pointwise(model.post_quant_conv, "post_quant_conv")
    layers = _Layers("decoder", height, width)
    layers.convolve(decoder.conv_in, "conv_in")
    _middle(layers, decoder.mid_block)
    for index, block in enumerate(decoder.up_blocks):
        name = f"up_blocks.{index}"
        _expect_type(block, UpDecoderBlock2D, name)
        for number, resnet in enumerate(block.resnets):
            _resnet(layers, resnet, f"{name}.resnets.{number}")
        for number, upsampler in enumerate(block.upsamplers or ()):
            place = f"{name}.upsamplers.{number}"
            _expect_type(upsampler, Upsample2D, place)
            plain = upsampler.norm is None and upsampler.interpolate and upsampler.name == "conv"
            _expect(
                plain and not upsampler.use_conv_transpose, place, "nearest upsampling before a convolution"
            )
            layers.upsample(upsampler.conv, place)
    return _ending(layers, decoder)


def encoder_layers(model: Any, height: int, width: int) -> tuple[Layer, ...]:
    """The layers before `quant_conv`, for pixels (height, width). Raises WeightsError."""
    from diffusers.models.autoencoders.vae import Encoder
    from diffusers.models.downsampling import Downsample2D
    from diffusers.models.unets.unet_2d_blocks import DownEncoderBlock2D

    expect_autoencoder(model)
    encoder = model.encoder
    _expect_type(encoder, Encoder, "encoder")
    _expect_pointwise(model.quant_conv, "quant_conv")
    layers = _Layers("encoder", height, width)
    layers.convolve(encoder.conv_in, "conv_in")
    for index, block in enumerate(encoder.down_blocks):
        name = f"down_blocks.{index}"
        _expect_type(block, DownEncoderBlock2D, name)
        for number, resnet in enumerate(block.resnets):
            _resnet(layers, resnet, f"{name}.resnets.{number}")
        for number, downsampler in enumerate(block.downsamplers or ()):
            place = f"{name}.downsamplers.{number}"
            _expect_type(downsampler, Downsample2D, place)
            plain = downsampler.norm is None and downsampler.use_conv and downsampler.padding == 0
            _expect(plain, place, "a strided convolution, padded at the bottom and right")
            layers.downsample(downsampler.conv, place)
    _middle(layers, encoder.mid_block)
    return _ending(layers, encoder)


class _Layers:
    """Layers so far, and the shape of what the last of them gives."""

    def __init__(self, part: str, height: int, width: int) -> None:
        self.part, self.height, self.width = part, height, width
        self.layers: list[Layer] = []

    def convolve(self, conv: Any, name: str, norm: nn.GroupNorm | None = None, **flags: bool) -> None:
        _expect_convolution(conv, name, stride=1, padding=1)
        self._add("convolve", conv, name, self.height, self.width, norm=norm, **flags)

    def upsample(self, conv: Any, name: str) -> None:
        _expect_convolution(conv, name, stride=1, padding=1)
        self._add("upsample", conv, name, 2 * self.height, 2 * self.width)

    def downsample(self, conv: Any, name: str) -> None:
        _expect_convolution(conv, name, stride=2, padding=0)
        self._add("downsample", conv, name, self.height // 2, self.width // 2)

    def convolve_and_add(
        self, conv: Any, name: str, norm: nn.GroupNorm, added_channels: int, shortcut: Any
    ) -> None:
        _expect_convolution(conv, name, stride=1, padding=1)
        flags = {"added_channels": added_channels, "has_shortcut": shortcut is not None}
        self._add("convolve", conv, name, self.height, self.width, norm=norm, shortcut=shortcut, **flags)

    def attend(self, attention: Any, name: str) -> None:
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


def _middle(layers: _Layers, block: Any) -> None:
    from diffusers.models.attention_processor import Attention
    from diffusers.models.unets.unet_2d_blocks import UNetMidBlock2D

    _expect_type(block, UNetMidBlock2D, "mid_block")
    _resnet(layers, block.resnets[0], "mid_block.resnets.0")
    for index, (attention, resnet) in enumerate(zip(block.attentions, block.resnets[1:], strict=True)):
        if attention is not None:
            name = f"mid_block.attentions.{index}"
            _expect_type(attention, Attention, name)
            for linear in (attention.to_q, attention.to_k, attention.to_v, attention.to_out[0]):
                _expect_type(linear, nn.Linear, name)
            _expect_norm(attention.group_norm, name)
            extras = (attention.spatial_norm, attention.norm_q, attention.norm_k, attention.norm_cross)
            plain = attention.heads == 1 and attention.residual_connection and not any(extras)
            plain = plain and attention.rescale_output_factor == 1 and attention.to_out[1].p == 0
            _expect(plain, name, "self-attention with one head and a residual connection")
            layers.attend(attention, name)
        _resnet(layers, resnet, f"mid_block.resnets.{index + 1}")


def _resnet(layers: _Layers, block: Any, name: str) -> None:
    from diffusers.models.resnet import ResnetBlock2D

    _expect_type(block, ResnetBlock2D, name)
    for norm in (block.norm1, block.norm2):
        _expect_norm(norm, name)
    _expect_type(block.nonlinearity, nn.SiLU, name)
    # Both mean a plain norm; the decoder's blocks say "group".
    plain = block.time_emb_proj is None and block.time_embedding_norm in ("default", "group")
    plain = plain and block.dropout.p == 0
    plain = plain and block.upsample is None and block.downsample is None and block.output_scale_factor == 1
    _expect(plain, name, "a residual block without time embedding, dropout, resampling and scale")
    if block.conv_shortcut is not None:
        _expect_pointwise(block.conv_shortcut, name)
    layers.convolve(block.conv1, f"{name}.conv1", block.norm1, keeps_input=True)
    layers.convolve_and_add(
        block.conv2, f"{name}.conv2", block.norm2, block.conv1.in_channels, block.conv_shortcut
    )


def _ending(layers: _Layers, part: Any) -> tuple[Layer, ...]:
    _expect_norm(part.conv_norm_out, "conv_norm_out")
    _expect_type(part.conv_act, nn.SiLU, "conv_act")
    layers.convolve(part.conv_out, "conv_out", part.conv_norm_out, is_last=True)
    return tuple(layers.layers)


def _expect_convolution(conv: Any, name: str, *, stride: int, padding: int) -> None:
    _expect_type(conv, nn.Conv2d, name)
    shape = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups, conv.padding_mode)
    known = ((3, 3), (stride, stride), (padding, padding), (1, 1), 1, "zeros")
    _expect(shape == known, name, f"a 3 x 3 convolution with stride {stride} and padding {padding}")


def _expect_pointwise(conv: Any, name: str) -> None:
    """A 1 × 1 convolution, or None."""
    if conv is not None:
        _expect_type(conv, nn.Conv2d, name)
        plain = (conv.kernel_size, conv.stride, conv.padding, conv.groups) == ((1, 1), (1, 1), (0, 0), 1)
        _expect(plain, name, "a 1 x 1 convolution")


def _expect_norm(norm: Any, name: str) -> None:
    _expect_type(norm, nn.GroupNorm, name)
    _expect(norm.affine, name, "a GroupNorm with weight and bias")


def _expect_type(module: Any, expected: type, name: str) -> None:
    # The class itself: a subclass or a wrapper may compute something else.
    _expect(type(module) is expected, name, f"of the class {expected.__name__} but {type(module).__name__}")


def _expect(known: bool, name: str, expected: str) -> None:
    if not known:
        raise WeightsError(
            f"{name} is not {expected}, so this autoencoder cannot run in strips; run it without a memory limit"
        )
