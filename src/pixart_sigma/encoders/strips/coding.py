"""Latents ↔ pixels through an autoencoder, exactly and within a limit on memory.

Legend: H, W pixels, h, w latents (H / 8, W / 8), C latent channels. Latents here are unscaled.
Knows nothing of pictures as files, nor where the limit comes from. While it runs the C allocator returns large
blocks.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from pixart_sigma.allocator import returning_freed_memory, trim
from pixart_sigma.encoders.kl_autoencoder import KLAutoencoder
from pixart_sigma.encoders.strips.layout import Layer, decoder_layers, encoder_layers
from pixart_sigma.encoders.strips.operations import operation, pointwise, unfolds
from pixart_sigma.encoders.strips.plan import (
    MIB,
    STRIP_BYTES,
    Circumstances,
    Plan,
    Step,
    least_bytes,
    plan_strips,
)
from pixart_sigma.encoders.strips.planes import FilePlane, MemoryPlane, Plane
from pixart_sigma.encoders.strips.statistics import Statistics
from pixart_sigma.errors import InvalidInput

OnProgress = Callable[[float], object]
"""Called after each strip with the fraction of the work that is done, to 1."""


def plan_decode(
    model: KLAutoencoder,
    height: int,
    width: int,
    *,
    limit_bytes: int,
    may_spill: bool,
    device: torch.device | None = None,
    strip_bytes: int = STRIP_BYTES,
) -> Plan:
    """Latents (height, width) → how they are decoded within limit_bytes above the weights.

    device: the model's own by default; a model on the meta device counts as one on the CPU. strip_bytes: what the rows
    of a strip beyond its first may take. Raises InvalidInput for a limit that cannot be met.
    """
    steps = [layer.step for layer in decoder_layers(model, height, width)]
    return plan_strips(steps, limit_bytes, _circumstances(model, steps, may_spill, device), strip_bytes)


def least_decode(
    model: KLAutoencoder, height: int, width: int, *, may_spill: bool, device: torch.device | None = None
) -> int:
    """The smallest limit_bytes with which latents (height, width) can be decoded in strips; as `plan_decode`."""
    steps = [layer.step for layer in decoder_layers(model, height, width)]
    return least_bytes(steps, _circumstances(model, steps, may_spill, device))


def plan_encode(model: KLAutoencoder, height: int, width: int, *, limit_bytes: int, may_spill: bool) -> Plan:
    """Pixels (height, width) → how they are encoded within limit_bytes above the weights; raises as plan_decode."""
    steps = [layer.step for layer in encoder_layers(model, height, width)]
    return plan_strips(steps, limit_bytes, _circumstances(model, steps, may_spill))


@torch.no_grad()
def decode_in_strips(
    model: KLAutoencoder,
    latents: Tensor,
    *,
    limit_bytes: int,
    spill: Path | None = None,
    on_progress: OnProgress | None = None,
    strip_bytes: int = STRIP_BYTES,
) -> Tensor:
    """latents (1, C, h, w), unscaled → pixels (1, 3, H, W) in the model's dtype, as `model.decode` gives them.

    limit_bytes: memory above the weights and the latents, of the device that the model is on. spill: a folder for
    what does not fit in it; None keeps everything in memory. strip_bytes: as in `plan_decode`. Raises InvalidInput for
    latents of another shape, a limit that cannot be met and a folder without room.
    """
    _expect_one(latents, model.config.latent_channels, "latents")
    size = latents.shape[2:]
    layers = decoder_layers(model, *size)
    _expect_size(layers, latents)
    plan = plan_decode(
        model, *size, limit_bytes=limit_bytes, may_spill=spill is not None, strip_bytes=strip_bytes
    )
    _expect_room(plan, spill)
    result = layers[-1].step
    pixels: Tensor | None = None
    first = 0
    with returning_freed_memory():
        # Before the zero padding of the first convolution, since this one has a bias.
        values = latents[0].permute(1, 2, 0).to(layers[0].module.weight)
        source = MemoryPlane(pointwise(values, model.post_quant_conv))
        for strip in _run(layers, plan, source, spill, on_progress):
            if pixels is None:  # not before the last layer, so that it is not beside the others
                pixels = strip.new_empty(1, result.channels, result.height, result.width)
            pixels[0, :, first : first + len(strip)] = strip.permute(2, 0, 1)
            first += len(strip)
    assert pixels is not None
    return pixels


@torch.no_grad()
def encode_in_strips(
    model: KLAutoencoder,
    pixels: Tensor,
    *,
    limit_bytes: int,
    spill: Path | None = None,
    on_progress: OnProgress | None = None,
) -> Tensor:
    """pixels (1, 3, H, W) in [-1, 1] → the posterior's mean (1, C, h, w), unscaled, in the model's dtype.

    It is what `model.encode` gives. pixels may be of any float dtype and device; otherwise as
    `decode_in_strips`.
    """
    _expect_one(pixels, model.config.in_channels, "pixels")
    layers = encoder_layers(model, *pixels.shape[2:])
    _expect_size(layers, pixels)
    plan = plan_encode(model, *pixels.shape[2:], limit_bytes=limit_bytes, may_spill=spill is not None)
    _expect_room(plan, spill)
    source = MemoryPlane(pixels[0].permute(1, 2, 0))
    with returning_freed_memory():
        hidden = torch.cat(list(_run(layers, plan, source, spill, on_progress)))
    moments = pointwise(hidden, model.quant_conv)
    return moments[..., : moments.shape[-1] // 2].permute(2, 0, 1)[None].contiguous()


def _circumstances(
    model: KLAutoencoder, steps: list[Step], may_spill: bool, device: torch.device | None = None
) -> Circumstances:
    device = device or model.device
    if device.type == "meta":
        device = torch.device("cpu")
    return Circumstances(
        value_bytes=model.dtype.itemsize,
        may_spill=may_spill,
        result_bytes=steps[-1].num_values * model.dtype.itemsize,
        unfolds=unfolds(device, model.dtype),
    )


def _run(
    layers: tuple[Layer, ...], plan: Plan, source: Plane, spill: Path | None, on_progress: OnProgress | None
) -> Iterator[Tensor]:
    """The strips (rows, W, C) of the last layer, after all others have run."""
    total = sum(layer.step.multiply_adds for layer in layers)
    done = 0.0
    current: Plane = source
    kept: Plane | None = None
    target: Plane | None = None
    statistics: Statistics | None = None
    try:
        for layer, step_plan, following in zip(layers, plan.steps, (*layers[1:], None), strict=True):
            step, rows = layer.step, step_plan.rows
            affine = statistics.affine(layer.norm) if statistics and layer.norm else None
            statistics = Statistics(step.channels) if following and following.norm else None
            trim()
            computing = operation(layer, current, kept if step.added_channels else None, affine, rows)
            if step.makes_plane:
                target = _plane(layer, spill if step_plan.spills else None)
            for first in range(0, step.height, rows):
                last = min(first + rows, step.height)
                trim()
                strip = computing.compute(first, last)
                if step.is_last:
                    yield strip
                else:
                    (target or current).write(first, strip)
                if statistics:
                    statistics.add(strip)
                del strip  # or it would stay while the next one is computed
                done += step.multiply_adds * (last - first) / step.height
                if on_progress:
                    on_progress(min(done / total, 1.0))
            del computing
            if step.keeps_input:
                kept = current
            elif target:
                current.close()
            elif kept and step.added_channels:
                kept.close()
                kept = None
            if target:
                current, target = target, None
    finally:
        for plane in (current, kept, target):
            if plane:
                plane.close()


def _plane(layer: Layer, folder: Path | None) -> Plane:
    step, weight = layer.step, layer.module.weight
    if folder is None:
        return MemoryPlane(weight.new_empty(step.height, step.width, step.channels))
    return FilePlane(step.height, step.width, step.channels, weight.dtype, folder)


def _expect_one(tensor: Tensor, channels: int, name: str) -> None:
    if tensor.ndim != 4 or tensor.shape[:2] != (1, channels):
        raise InvalidInput(
            f"{name} are (1, {channels}, height, width), not {tuple(tensor.shape)}; give one at a time"
        )


def _expect_size(layers: tuple[Layer, ...], tensor: Tensor) -> None:
    if not all(layer.step.height and layer.step.width for layer in layers):
        raise InvalidInput(
            f"{tensor.shape[3]}x{tensor.shape[2]} is too small for the autoencoder; give a larger one"
        )


def _expect_room(plan: Plan, folder: Path | None) -> None:
    if folder is None or not plan.spilled_bytes:
        return
    if not folder.is_dir():
        raise InvalidInput(
            f"the folder for temporary files, {folder}, does not exist; make it or name another"
        )
    free = shutil.disk_usage(folder).free
    if free < plan.spilled_bytes:
        raise InvalidInput(
            f"{folder} has {free // MIB} MiB left, and the temporary files need {-(-plan.spilled_bytes // MIB)} MiB; "
            "free some space there, name another folder or raise the memory limit"
        )
