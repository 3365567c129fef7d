"""DPM-Solver++ with fractional timesteps, against what the published sampler computed."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from comparison import load_golden, relative_error
from pixart_sigma.diffusion import denoise
from pixart_sigma.model import Captions, TransformerConfig
from pixart_sigma.pipeline.profiles import DIFFUSERS, OFFICIAL
from pixart_sigma.pipeline.samplers import make_scheduler
from tiny_pipeline import SCHEDULER


class GoldenModel:
    """The closed-form noise model of the golden file; a caption is one number."""

    config = TransformerConfig()

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights

    def prepare_timesteps(self, timesteps: Tensor, image_size: Any, aspect_ratio: Any) -> Any:
        return timesteps.float()

    def __call__(self, latents: Tensor, captions: Captions, timestep: Any, kept_tokens: Any) -> Tensor:
        mixed = torch.einsum("oc,bchw->bohw", self.weights, latents)
        return mixed.tanh() * timestep / 1000 + 0.1 * captions.keys[0] + latents * timestep / 1000


def caption_means(captions: Tensor) -> Captions:
    means = captions.flatten(1).mean(1).reshape(1, -1, 1, 1, 1)
    return Captions(keys=means, values=means, mask=None)


def sampled(scheduler: Any) -> tuple[Tensor, Tensor]:
    tensors, golden = load_golden("dpm_solver_20")
    result = denoise(
        GoldenModel(tensors["input.W"]),
        tensors["input.noise"],
        caption_means(tensors["input.cond"]),
        caption_means(tensors["input.uncond"]),
        scheduler,
        golden["steps"],
        golden["cfg_scale"],
    )
    return result, tensors["output"]


def test_it_gives_the_latents_of_the_published_sampler() -> None:
    result, expected = sampled(make_scheduler("dpm++-2m", SCHEDULER, OFFICIAL))
    assert relative_error(result, expected) <= 1e-5


def test_whole_timesteps_come_near_and_not_there() -> None:
    result, expected = sampled(make_scheduler("dpm++-2m", SCHEDULER, DIFFUSERS))
    assert 1e-4 < relative_error(result, expected) <= 1e-3


def test_times_go_down_to_zero_in_equal_strides() -> None:
    scheduler = make_scheduler("dpm++-2m", SCHEDULER, OFFICIAL)
    scheduler.set_timesteps(20)
    assert scheduler.timesteps.tolist() == pytest.approx([999 - 49.95 * step for step in range(20)], abs=1e-3)
    assert scheduler.sigmas[-1] == pytest.approx(math.sqrt(1e-4 / (1 - 1e-4)), rel=1e-5)


def test_other_samplers_are_those_of_diffusers() -> None:
    scheduler = make_scheduler("ddim", SCHEDULER, OFFICIAL)
    scheduler.set_timesteps(7)
    assert not scheduler.timesteps.is_floating_point()
