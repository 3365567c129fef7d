"""Another autoencoder: what its latents are like, and by what they are scaled (paper section 3.3).

Legend: N images, C latent channels, h, w latents.
Latents here are unscaled, as the autoencoder gives them. Knows nothing of pixels or of the transformer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from pixart_sigma.errors import InvalidInput
from pixart_sigma.training.surgery import Change
from pixart_sigma.weights.atomic import written_whole

ScalingPolicy = Literal["estimate", "config"]


@dataclass(frozen=True)
class LatentStatistics:
    """Mean and standard deviation of each channel (C); scaling_factor is 1 / the deviation of all values together."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    scaling_factor: float
    num_images: int


@dataclass(frozen=True)
class LatentScaling:
    """Scaled latents are (latents - shift_factor) · scaling_factor; the shift is the autoencoder's own.

    config_scaling_factor is what the autoencoder's config.json says, statistics what was measured.
    """

    policy: ScalingPolicy
    scaling_factor: float
    shift_factor: float
    config_scaling_factor: float
    statistics: LatentStatistics


def estimate_latent_statistics(batches: Iterable[Tensor]) -> LatentStatistics:
    """Batches (N, C, h, w) of unscaled latents, their sizes free to differ → statistics over every position of all.

    Summed in float64. Raises InvalidInput for no latents, for batches of different channels, and for latents that are
    not finite or all alike.
    """
    count, num_images = 0, 0
    total = squares = torch.zeros(0, dtype=torch.float64)
    for batch in batches:
        values = batch.detach().double().transpose(0, 1).flatten(1)  # (C, N h w)
        if num_images and len(values) != len(total):
            raise InvalidInput(
                f"latents of {len(values)} channels follow latents of {len(total)}; encode all with one autoencoder"
            )
        if not num_images:
            total, squares = values.new_zeros(len(values)), values.new_zeros(len(values))
        total = total + values.sum(1)
        squares = squares + values.square().sum(1)
        count += values.shape[1]
        num_images += len(batch)
    if not count:
        raise InvalidInput("no latents to estimate a scaling from; give at least one image")
    mean = total / count
    std = (squares / count - mean.square()).clamp(min=0).sqrt()
    overall = float((squares.mean() / count - mean.mean().square()).clamp(min=0).sqrt())
    if not math.isfinite(overall) or overall <= 1e-6 * float(mean.abs().max()):
        raise InvalidInput(
            f"the latents' standard deviation is {overall:g}, which scales nothing; check the autoencoder"
        )
    return LatentStatistics(
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        scaling_factor=1 / overall,
        num_images=num_images,
    )


def choose_scaling(
    policy: ScalingPolicy, scaling_factor: float, shift_factor: float, statistics: LatentStatistics
) -> tuple[LatentScaling, Change]:
    """The autoencoder's own factors and its measured latents → what to use, and a line of the log that has both."""
    used = scaling_factor if policy == "config" else statistics.scaling_factor
    detail = (
        f"{used:.6g} ({policy}); config.json says {scaling_factor:.6g}, {statistics.num_images} images say "
        f"{statistics.scaling_factor:.6g}; shift_factor stays {shift_factor:.6g}"
    )
    scaling = LatentScaling(policy, used, shift_factor, scaling_factor, statistics)
    return scaling, Change("vae.scaling_factor", "configured", detail)


def write_latent_scaling(scaling: LatentScaling, path: Path) -> None:
    """All of it as a JSON object."""
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(asdict(scaling), indent=2) + "\n", "utf-8")
