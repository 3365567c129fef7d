"""DPM-Solver++ against diffusers', and with fractional timesteps against what the published sampler computed."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from comparison import load_golden, relative_error
from pixart_sigma.diffusion import denoise
from pixart_sigma.diffusion.dpm_solver import DPMSolver
from pixart_sigma.errors import WeightsError
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
    latents = torch.ones(1, 1, 1, 1)
    for timestep in scheduler.timesteps:
        (latents,) = scheduler.step(torch.zeros(1, 1, 1, 1), timestep, latents)
    # Without noise in the prediction, latents only grow with the signal: down to timestep 0, and no further.
    alpha_bars = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), dim=0)
    assert float(latents) == pytest.approx(math.sqrt(alpha_bars[0] / alpha_bars[-1]), rel=1e-4)


def test_other_samplers_are_those_of_diffusers() -> None:
    scheduler = make_scheduler("ddim", SCHEDULER, OFFICIAL)
    scheduler.set_timesteps(7)
    assert not scheduler.timesteps.is_floating_point()


@pytest.mark.parametrize("steps", [1, 2, 3, 14, 20, 50, 999])
@pytest.mark.parametrize("schedule", ["linear", "scaled_linear"])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_it_is_the_scheduler_of_diffusers(prediction_type: str, schedule: str, steps: int) -> None:
    from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

    config = SCHEDULER | {"prediction_type": prediction_type, "beta_schedule": schedule}
    ours, theirs = DPMSolver.from_config(config), DPMSolverMultistepScheduler.from_config(config)
    ours.set_timesteps(steps)
    theirs.set_timesteps(steps)
    assert ours.init_noise_sigma == theirs.init_noise_sigma == 1
    assert ours.timesteps.dtype == theirs.timesteps.dtype
    assert torch.equal(ours.timesteps, theirs.timesteps)
    found = expected = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for timestep in ours.timesteps:
        (found,) = ours.step(0.6 * torch.tanh(0.7 * found), timestep, found)
        (expected,) = theirs.step(0.6 * torch.tanh(0.7 * expected), timestep, expected, return_dict=False)
        assert relative_error(found, expected) <= 1e-5


@pytest.mark.parametrize(
    "setting",
    [{"trained_betas": [0.1] * 1000}, {"thresholding": True}, {"beta_end": -1.0}, {"num_train_timesteps": 0}],
    ids=lambda setting: next(iter(setting)),
)
def test_official_timesteps_do_not_hide_another_schedule(setting: dict[str, Any]) -> None:
    with pytest.raises(WeightsError, match=next(iter(setting))):
        make_scheduler("dpm++-2m", SCHEDULER | setting, OFFICIAL)


def test_it_begins_anew() -> None:
    solver = DPMSolver()
    latents = torch.randn(1, 4, 4, 4)

    def solved() -> Tensor:
        solver.set_timesteps(4)
        result = latents
        for timestep in solver.timesteps:
            (result,) = solver.step(result.tanh(), timestep, result)
        return result

    assert torch.equal(solved(), solved())


@pytest.mark.parametrize(
    "setting",
    [
        {"solver_order": 3},
        {"timestep_spacing": "leading"},
        {"use_karras_sigmas": True},
        {"rescale_betas_zero_snr": True},
        {"lambda_min_clipped": -5.1},
        {"prediction_type": "sample"},
    ],
    ids=str,
)
def test_what_is_another_solver_is_left_to_diffusers(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        DPMSolver.from_config(SCHEDULER | setting)
    assert type(make_scheduler("dpm++-2m", SCHEDULER | setting)).__name__ == "DPMSolverMultistepScheduler"
