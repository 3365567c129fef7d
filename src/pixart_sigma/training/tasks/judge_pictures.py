"""What judges learn from: drawn scenes, held-out pairs among them, made as ragged as generated pictures are.

Legend: B batch, N pictures. Knows nothing of what is read off the pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pixart_sigma.data.drawn import ImagePool, SceneRecord, image_pool
from pixart_sigma.evaluation.judges.backbone import SIDE, judge_pixels
from pixart_sigma.pipeline.placement.processes import Processes
from pixart_sigma.training.draws import batch_indices, keyed_generator
from pixart_sigma.training.recipe.process import RunRecipe
from pixart_sigma.training.recipe.small_models import PoolRecipe
from pixart_sigma.training.watching.progress import report_stage

# Seeds that no generator is trained or validated on.
FIRST_SEED = 2 * 10**9
FIRST_VALIDATION_SEED = 3 * 10**9

NUM_DRAWS = 5
"""Random numbers that say how one picture is roughened."""
_SHIFT = 6
_DOUBLINGS = 0.4
_NOISE = 0.12


class JudgePictures:
    """The pictures of pools of several sizes, one after the other, and their records."""

    def __init__(self, pools: Sequence[ImagePool]) -> None:
        self.records: list[SceneRecord] = [record for pool in pools for record in pool.records]
        self._pools = [pool.images for pool in pools]

    def __len__(self) -> int:
        return len(self.records)

    def take(self, indices: Tensor) -> Tensor:
        """indices (B,) → pixels (B, 3, 128, 128) fp32 in [-1, 1]."""
        pixels = torch.empty(len(indices), 3, SIDE, SIDE)
        first = 0
        for images in self._pools:
            here = (indices >= first) & (indices < first + len(images))
            if here.any():
                rows = (indices[here] - first).tolist()
                pixels[here] = judge_pixels(np.stack([images[row] for row in rows]))
            first += len(images)
        return pixels

    def roughened(self, run: RunRecipe, step: int, part: range) -> tuple[Tensor, Tensor]:
        """The places (B,) and pixels of a part of the batch of `step`, each picture roughened in its own way."""
        within = slice(part.start, part.stop)
        indices = batch_indices(run.seed, step, run.batch_size, len(self))[within]
        generator = keyed_generator(run.seed, step, "roughness")
        draws = torch.rand(run.batch_size, NUM_DRAWS, generator=generator)[within]
        noise = torch.rand(run.batch_size, 3, SIDE, SIDE, generator=generator)[within]
        return indices, roughen(self.take(indices), draws, noise)

    def ids(self, run: RunRecipe, step: int, part: range) -> list[str]:
        """What the pictures of a part of a batch are called: by the seeds of their scenes."""
        indices = batch_indices(run.seed, step, run.batch_size, len(self))[part.start : part.stop]
        return [f"scene-{self.records[index].seed}" for index in indices.tolist()]


def open_pictures(
    pool: PoolRecipe, sizes: Sequence[int], output: Path, processes: Processes
) -> tuple[JudgePictures, JudgePictures]:
    """Pictures for training and for validation, drawn where they are missing; every size shows scenes of its own."""
    folder = output / pool.folder

    def opened(name: str, first_seed: int, num: int) -> JudgePictures:
        pools = []
        for index, size in enumerate(sizes):
            place = folder / f"{name}-{size}"
            report = report_stage(f"drawing {place.name}")
            pools.append(image_pool(place, first_seed + index * num, num, size, size, report, all_pairs=True))
        return JudgePictures(pools)

    with processes.first_goes_first():
        training = opened("judges-training", FIRST_SEED, pool.num_scenes)
        validation = opened("judges-validation", FIRST_VALIDATION_SEED, pool.num_validation)
    return training, validation


def roughen(pixels: Tensor, draws: Tensor, noise: Tensor) -> Tensor:
    """Shift by up to 6 px, change gamma, blur half of the pictures a little, and add noise.

    pixels (B, 3, H, W) in [-1, 1], draws (B, 5) and noise (B, 3, H, W) in [0, 1) → (B, 3, H, W) in [-1, 1].
    """
    height, width = pixels.shape[-2:]
    padded = F.pad(pixels, (_SHIFT,) * 4, mode="replicate")
    corners = (draws[:, :2] * (2 * _SHIFT + 1)).long().tolist()
    shifted = torch.stack(
        [picture[:, y : y + height, x : x + width] for picture, (y, x) in zip(padded, corners, strict=True)]
    )
    gamma, blur, grain = (draws[:, column, None, None, None] for column in (2, 3, 4))
    light = shifted.add_(1).mul_(0.5).pow_(2 ** (_DOUBLINGS * (2 * gamma - 1)))
    soft = F.avg_pool2d(light, 3, stride=1, padding=1, count_include_pad=False)
    light = light.lerp_(soft, (2 * blur - 1).clamp(min=0))
    return light.add_(_NOISE * grain.square() * (noise - 0.5)).mul_(2).sub_(1).clamp_(-1, 1)
