"""How much memory an autoencoder takes to decode, from its configuration alone.

Legend: H, W pixels, h, w latents, B pictures. Memory is in bytes, above the weights and the latents.
Knows shapes only: the model that is built here is on the meta device. Encoding takes less than decoding.

What is predicted is what tensors take. On the CPU a process takes no more while the C allocator returns freed blocks,
and up to twice as much while it keeps them (`pixart_sigma.allocator`). Tiled pictures are decoded in the first mode,
a whole one in whichever the process is in.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from pixart_sigma.encoders.blended_tiles import TILE_SIDES, tile_sizes
from pixart_sigma.encoders.strips.coding import least_decode, plan_decode
from pixart_sigma.encoders.strips.layout import decoder_layers
from pixart_sigma.encoders.strips.operations import unfolds
from pixart_sigma.encoders.strips.plan import MIB, Step
from pixart_sigma.encoders.tiling import Tiling, TilingMethod
from pixart_sigma.errors import InvalidInput

NO_LIMIT = sys.maxsize

_CPU = torch.device("cpu")

_ONEDNN_CHANNELS = 16
"""oneDNN rounds channels up to a multiple of this in its own order of a tensor (nChw16c)."""

_COPIED_TWICE = 128
"""Channels from which a 1 × 1 convolution in bf16 takes another copy of its input: measured, not documented."""


def predict_decode_bytes(
    config: Mapping[str, Any],
    height: int,
    width: int,
    dtype_bytes: int,
    tiling: Tiling | None,
    *,
    num_images: int = 1,
    device: torch.device = _CPU,
) -> int:
    """The peak of `Autoencoder.decode` for num_images pictures of height × width pixels at a time.

    config: vae/config.json's content. dtype_bytes: 4 for fp32, 2 for bf16. tiling: the autoencoder's; None is whole.
    device: where it will run. Raises InvalidInput for a limit that cannot be met, WeightsError for an autoencoder of
    a layout that strips do not know.
    """
    model, latents = _shapes(config, height, width, dtype_bytes)
    if tiling is None:
        return num_images * whole_bytes(model, *latents, device)
    kept = kept_bytes(model, *latents, num_images)
    limit = limit_of_one(tiling, kept)
    if tiling.method == "fast":
        return kept + blended_bytes(model, *latents, fitting_tile(model, *latents, limit, device), device)
    may_spill = tiling.spill is not None
    return (
        kept + plan_decode(model, *latents, limit_bytes=limit, may_spill=may_spill, device=device).peak_bytes
    )


def least_decode_bytes(
    config: Mapping[str, Any],
    height: int,
    width: int,
    dtype_bytes: int,
    method: TilingMethod = "exact",
    *,
    may_spill: bool = True,
    num_images: int = 1,
    device: torch.device = _CPU,
) -> int:
    """The smallest limit that `predict_decode_bytes` accepts. may_spill: with a folder for temporary files."""
    model, latents = _shapes(config, height, width, dtype_bytes)
    kept = kept_bytes(model, *latents, num_images)
    if method == "fast":
        return kept + min(blended_bytes(model, *latents, side, device) for side in TILE_SIDES)
    return kept + least_decode(model, *latents, may_spill=may_spill, device=device)


def spilled_decode_bytes(
    config: Mapping[str, Any],
    height: int,
    width: int,
    dtype_bytes: int,
    tiling: Tiling | None,
    *,
    num_images: int = 1,
    device: torch.device = _CPU,
) -> int:
    """The room that temporary files need; arguments and errors are those of `predict_decode_bytes`."""
    if tiling is None or tiling.spill is None:
        return 0
    model, latents = _shapes(config, height, width, dtype_bytes)
    limit = limit_of_one(tiling, kept_bytes(model, *latents, num_images))
    return plan_decode(model, *latents, limit_bytes=limit, may_spill=True, device=device).spilled_bytes


def kept_bytes(model: Any, height: int, width: int, num_images: int) -> int:
    """Pixels of a whole batch, which lie beside the picture that is being decoded; a single one is counted there."""
    return num_images * _picture_bytes(model, height, width) if num_images > 1 else 0


def limit_of_one(tiling: Tiling, kept: int) -> int:
    """What the limit leaves for one picture beside `kept` bytes."""
    return NO_LIMIT if tiling.limit_bytes is None else tiling.limit_bytes - kept


def fitting_tile(model: Any, height: int, width: int, limit_bytes: int, device: torch.device) -> int:
    """Latents (height, width) → the side of the largest tile, in latents, that keeps within limit_bytes.

    Raises InvalidInput if none does.
    """
    needed = {side: blended_bytes(model, height, width, side, device) for side in TILE_SIDES}
    for side, num_bytes in needed.items():
        if num_bytes <= limit_bytes:
            return side
    least = -(-min(needed.values()) // MIB)
    raise InvalidInput(
        f"{max(limit_bytes, 0) // MIB} MiB are too little for a picture in blended tiles: the least is {least} MiB; "
        "raise the limit, or use exact tiling"
    )


def blends(model: Any, height: int, width: int, tiling: Tiling | None, device: torch.device) -> bool:
    """Whether a picture of latents (height, width) is decoded in blended tiles, and so not exactly.

    One that is no larger than a tile is decoded whole. Raises InvalidInput for a limit that cannot be met.
    """
    if tiling is None or tiling.method != "fast":
        return False
    return fitting_tile(model, height, width, limit_of_one(tiling, 0), device) < max(height, width)


def blended_bytes(model: Any, height: int, width: int, tile_side: int, device: torch.device) -> int:
    """The peak of `decode_blended` for latents (height, width).

    diffusers keeps all decoded tiles, overlaps included; beside them is first a tile as it is decoded, and then, when
    they are joined, the picture twice: in rows and as a whole.
    """
    if height <= tile_side and width <= tile_side:
        return whole_bytes(model, height, width, device)
    heights, widths = tile_sizes(height, tile_side), tile_sizes(width, tile_side)
    tiles = _picture_bytes(model, sum(heights), sum(widths))
    decoding = whole_bytes(model, max(heights), max(widths), device)
    return tiles + max(decoding, 2 * _picture_bytes(model, height, width))


def whole_bytes(model: Any, height: int, width: int, device: torch.device) -> int:
    """The peak of diffusers' own decoder for latents (height, width).

    Not an upper bound but a count, step by step, of the activations that exist at once: what the decoder still refers
    to, what the layer reads and gives, and what a convolution copies. With SDXL's autoencoder in fp32 it comes when
    the last upsampling is convolved: the block's input (512 channels at half the size), the layer's (256 at half the
    size), and in full size what was upsampled, its copy for oneDNN, and oneDNN's result (256 each): 960 values a pixel.
    """
    counting = _Counting(model.dtype, device)
    steps = [layer.step for layer in decoder_layers(model, height, width)]
    return max(counting.held(steps, index) + max(counting.moments(step)) for index, step in enumerate(steps))


class _Counting:
    """What diffusers' decoder has in memory beside the weights."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self.dtype, self.on_cpu = dtype, device.type == "cpu"
        self.unfolds = unfolds(device, dtype)

    def held(self, steps: Sequence[Step], index: int) -> int:
        """The input of a block of several layers, as long as the block runs, if no layer of it counts it."""
        first = index
        while first > 0 and _block(steps[first - 1]) == _block(steps[index]):
            first -= 1
        # The first convolution of the first residual block reads it, and the second one adds it.
        counted = index == first or (index == first + 1 and steps[first].keeps_input)
        return 0 if counted else self._reads(steps[first])

    def moments(self, step: Step) -> list[int]:
        """What a step has in memory at the moments that can be its highest."""
        reads, gives = self._reads(step), self._gives(step)
        convolving = self._convolving(step, reads, gives)
        if step.kind == "attend":
            return [
                reads * 8
            ]  # its input twice, normalised, queries, keys, values, their result, and projected
        if step.kind == "upsample":
            upsampled = 4 * reads
            return [reads + upsampled + self._convolving(step, upsampled, gives)]
        if step.keeps_input:
            return [3 * reads, 2 * reads + convolving]  # itself, normalised, activated
        if step.added_channels:
            added = self._bytes(step.height, step.width, step.added_channels)
            sums = added + 3 * gives  # the sum is made, and then divided by one
            moments = [added + 2 * reads, added + reads + convolving, sums]
            if step.has_shortcut:
                moments += [added + gives + self._projecting(step, added, gives), sums + gives]
            return moments
        return [2 * reads, reads + convolving]

    def _convolving(self, step: Step, reads: int, gives: int) -> int:
        """The result of a 3 × 3 convolution, and what it copies."""
        if self.unfolds:
            return 9 * reads + gives
        if not self.on_cpu:
            return gives
        # oneDNN wants its own order of the values, of the kernel and of the result, which is then copied back.
        ordered = self._bytes(step.height, step.width, _rounded_up(step.channels, _ONEDNN_CHANNELS))
        kernel = 9 * step.in_channels * step.channels * self.dtype.itemsize
        return max(reads + kernel + ordered, ordered + gives)

    def _projecting(self, step: Step, reads: int, gives: int) -> int:
        """The result of a 1 × 1 convolution. In fp32 it is a matrix product; in bf16 oneDNN copies its input, and
        wide ones twice.
        """
        if not (self.on_cpu and self.dtype == torch.bfloat16):
            return gives
        return gives + reads * (2 if step.added_channels >= _COPIED_TWICE else 1)

    def _reads(self, step: Step) -> int:
        return self._bytes(step.in_height, step.in_width, step.in_channels)

    def _gives(self, step: Step) -> int:
        return self._bytes(step.height, step.width, step.channels)

    def _bytes(self, height: int, width: int, channels: int) -> int:
        return height * width * channels * self.dtype.itemsize


def _block(step: Step) -> str:
    """decoder.up_blocks.2.resnets.0.conv1 → up_blocks.2; decoder.conv_out → conv_out."""
    _, block, *rest = step.name.split(".")
    return f"{block}.{rest[0]}" if block == "up_blocks" else block


def _picture_bytes(model: Any, height: int, width: int) -> int:
    """Latents (height, width) → the bytes of the picture's pixels."""
    area = height * width * _latent_scale(model) ** 2
    return int(area * model.config.out_channels * model.dtype.itemsize)


def _latent_scale(model: Any) -> int:
    return int(2 ** (len(model.config.block_out_channels) - 1))


def _shapes(
    config: Mapping[str, Any], height: int, width: int, dtype_bytes: int
) -> tuple[Any, tuple[int, int]]:
    """→ (the model on the meta device, the latents' height and width)."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    with torch.device("meta"):
        model = AutoencoderKL.from_config(dict(config))
    # Not its own `to`, which warns of dtypes that matter where there are values.
    torch.nn.Module.to(model, {4: torch.float32, 2: torch.bfloat16}[dtype_bytes])
    scale = _latent_scale(model)
    return model, (height // scale, width // scale)


def _rounded_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
