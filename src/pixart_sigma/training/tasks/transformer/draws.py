"""Every random draw of a sample: its caption, its noise, its timestep, the tokens it keeps. Keyed by the sample.

Legend: B samples, C latent channels, h, w latents, M kept tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pixart_sigma.diffusion.token_discard import draw_kept_tokens
from pixart_sigma.training.draws import sample_generators
from pixart_sigma.training.recipe.data import CaptionRecipe
from pixart_sigma.training.recipe.transformer import ObjectiveRecipe

_SMALLEST_SHARE = 1e-6  # keeps the normal's quantile finite


@dataclass(frozen=True)
class SampleKeys:
    """Which samples: the positions of a part of the global batch of a step."""

    seed: int
    epoch: int
    step: int
    batch_size: int
    positions: range

    def generators(self, purpose: str) -> list[torch.Generator]:
        """A generator a sample."""
        return sample_generators(self.seed, self.epoch, self.step, self.batch_size, self.positions, purpose)


def draw_captions(
    keys: SampleKeys, sources: Sequence[Sequence[str]], recipe: CaptionRecipe
) -> tuple[list[int], Tensor]:
    """The sources of each sample's captions → which one to take, and whether (B,) bool the empty one replaces it."""
    chosen, dropped = [], []
    for generator, names in zip(keys.generators("caption"), sources, strict=True):
        kind, drop = torch.rand(2, generator=generator).tolist()
        chosen.append(_pick(kind, names, recipe.mix))
        dropped.append(drop < recipe.dropout)
    return chosen, torch.tensor(dropped)


def _pick(share: float, names: Sequence[str], mix: Mapping[str, float]) -> int:
    weights = [mix.get(name, 0.0) if mix else 1.0 for name in names]
    bound = share * sum(weights)
    for index, weight in enumerate(weights):
        bound -= weight
        if weight and bound < 0:
            return index
    return max(range(len(weights)), key=weights.__getitem__)


def draw_noise(keys: SampleKeys, shape: tuple[int, int, int]) -> Tensor:
    """Unit normal (B, C, h, w) fp32 on the CPU, the same whatever the device."""
    return torch.stack([torch.randn(shape, generator=generator) for generator in keys.generators("noise")])


def draw_timesteps(keys: SampleKeys, num_timesteps: int, objective: ObjectiveRecipe) -> Tensor:
    """Timesteps (B,) int64. Stratified over the global batch: sample i falls in the i-th of its equal shares.

    Samples come in random order, so that each one's timestep has the wanted distribution, and the loss less noise.
    """
    within = torch.stack([torch.rand((), generator=generator) for generator in keys.generators("timestep")])
    uniform = (torch.tensor(list(keys.positions)) + within) / keys.batch_size
    if objective.timesteps == "logit-normal":
        normal = torch.special.ndtri(uniform.clamp(_SMALLEST_SHARE, 1 - _SMALLEST_SHARE))
        uniform = torch.sigmoid(objective.timestep_mean + objective.timestep_std * normal)
    return (uniform * num_timesteps).long().clamp(max=num_timesteps - 1)


def draw_kept(keys: SampleKeys, grid: tuple[int, int], window: tuple[int, int]) -> Tensor:
    """The tokens (B, M) that random discard keeps."""
    return draw_kept_tokens(grid, window, keys.generators("kept tokens"))
