"""How much memory an autoencoder takes to decode, from its configuration alone.

Legend: H, W pixels, h, w latents, B pictures. Memory is in bytes, above the weights and the latents.
Knows shapes only: the model that is built here is on the meta device. Encoding takes less than decoding.

What is predicted is what tensors take. On the CPU a process takes no more while the C allocator returns freed blocks,
and up to twice as much while it keeps them (`pixart_sigma.allocator`). Tiled pictures are decoded in the first mode,
a whole one in whichever the process is in.
"""

import sys
from collections.abc import Mapping
from typing import Any

import torch

from pixart_sigma.encoders.blended_tiles import OVERLAP, TILE_SIDES, tile_sizes
from pixart_sigma.encoders.kl_autoencoder import KLAutoencoder
from pixart_sigma.encoders.kl_autoencoder_files import empty_autoencoder
from pixart_sigma.encoders.strips.coding import least_decode, plan_decode
from pixart_sigma.encoders.strips.layout import decoder_layers
from pixart_sigma.encoders.strips.operations import unfolds
from pixart_sigma.encoders.strips.plan import FP32_BYTES, MIB, Step
from pixart_sigma.encoders.tiling import Tiling, TilingMethod
from pixart_sigma.errors import InvalidInput

NO_LIMIT = sys.maxsize

_CPU = torch.device("cpu")


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


def kept_bytes(model: KLAutoencoder, height: int, width: int, num_images: int) -> int:
    """Pixels of a whole batch, which lie beside the picture that is being decoded; a single one is counted there."""
    return num_images * _picture_bytes(model, height, width) if num_images > 1 else 0


def limit_of_one(tiling: Tiling, kept: int) -> int:
    """What the limit leaves for one picture beside `kept` bytes."""
    return NO_LIMIT if tiling.limit_bytes is None else tiling.limit_bytes - kept


def fitting_tile(
    model: KLAutoencoder, height: int, width: int, limit_bytes: int, device: torch.device
) -> int:
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


def blends(
    model: KLAutoencoder, height: int, width: int, tiling: Tiling | None, device: torch.device
) -> bool:
    """Whether a picture of latents (height, width) is decoded in blended tiles, and so not exactly.

    One that is no larger than a tile is decoded whole. Raises InvalidInput for a limit that cannot be met.
    """
    if tiling is None or tiling.method != "fast":
        return False
    return fitting_tile(model, height, width, limit_of_one(tiling, 0), device) < max(height, width)


def blended_bytes(model: KLAutoencoder, height: int, width: int, tile_side: int, device: torch.device) -> int:
    """The peak of `decode_blended` for latents (height, width): a tile as it is decoded, beside the picture, the lower
    edges of two rows of tiles, and the right one of a tile.
    """
    if height <= tile_side and width <= tile_side:
        return whole_bytes(model, height, width, device)
    heights, widths = tile_sizes(height, tile_side), tile_sizes(width, tile_side)
    overlap = int(OVERLAP * tile_side)
    edges = 2 * _picture_bytes(model, overlap, sum(widths)) + _picture_bytes(model, max(heights), overlap)
    decoding = whole_bytes(model, max(heights), max(widths), device)
    return _picture_bytes(model, height, width) + edges + decoding


def whole_bytes(model: KLAutoencoder, height: int, width: int, device: torch.device) -> int:
    """The peak of the whole decoder for latents (height, width).

    Not an upper bound but a count, step by step, of the activations that exist at once: what the layer was given, what
    it reads and gives. With SDXL's autoencoder it comes at the first convolution in full size: the block's input and
    that normalised (256 channels each), and the convolution's result (128): 640 values a pixel.
    """
    counting = _Counting(model.dtype, device)
    return max(max(counting.moments(layer.step)) for layer in decoder_layers(model, height, width))


class _Counting:
    """What the decoder has in memory beside the weights.

    On a CPU, in channels-last order, a convolution copies nothing; what other devices' kernels take is left out.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self.dtype = dtype
        self.unfolds = unfolds(device, dtype)

    def moments(self, step: Step) -> list[int]:
        """What a step has in memory at the moments that can be its highest."""
        reads = self._bytes(step.in_height, step.in_width, step.in_channels)
        gives = self._bytes(step.height, step.width, step.channels)
        convolving = gives + (9 * reads if self.unfolds else 0)
        if step.kind == "attend":
            # Its input, that normalised, queries, keys, values, their result, that projected, and the sum.
            return [8 * reads]
        if step.kind == "upsample":
            # Its input, padded, and a part of that; a quarter of the result by itself. The kernels in fp32, halved.
            kernels = 29 * step.in_channels * step.channels * FP32_BYTES
            return [3 * reads + convolving + gives // 4 + kernels]
        if step.keeps_input or step.is_last:
            return [2 * reads + convolving]  # itself and normalised
        if step.added_channels:
            added = self._bytes(step.height, step.width, step.added_channels)
            moments = [added + 2 * reads, added + reads + convolving]
            return [*moments, added + 2 * gives] if step.has_shortcut else moments
        return [reads + convolving]

    def _bytes(self, height: int, width: int, channels: int) -> int:
        return height * width * channels * self.dtype.itemsize


def _picture_bytes(model: KLAutoencoder, height: int, width: int) -> int:
    """Latents (height, width) → the bytes of the picture's pixels."""
    area = height * width * model.config.pixels_per_latent**2
    return int(area * model.config.out_channels * model.dtype.itemsize)


def _shapes(
    config: Mapping[str, Any], height: int, width: int, dtype_bytes: int
) -> tuple[KLAutoencoder, tuple[int, int]]:
    """→ (the model on the meta device, the latents' height and width)."""
    model = empty_autoencoder(config, "vae/config.json").to(
        {4: torch.float32, 2: torch.bfloat16}[dtype_bytes]
    )
    scale = model.config.pixels_per_latent
    return model, (height // scale, width // scale)
