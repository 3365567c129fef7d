"""A picture's random numbers. Knows nothing of what is made of them."""

from collections.abc import Sequence

import torch
from torch import Tensor


def picture_generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One generator on the CPU per picture: first its initial noise is drawn from it, then what its sampler draws."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def seeded_noise(generators: Sequence[torch.Generator], shape: tuple[int, ...]) -> Tensor:
    """One generator per picture and the shape of its latents → (len(generators), *shape), unit normal, float32, CPU.

    A generator for each, so that a picture's noise depends on its seed alone, whatever the batch or the device.
    diffusers draws the same in float32 from a list of such generators.
    """
    return torch.stack([torch.randn(shape, generator=generator) for generator in generators])
