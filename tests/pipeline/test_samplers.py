import math

import pytest
import torch

from comparison import relative_error
from pixart_sigma.errors import InvalidInput, WeightsError
from pixart_sigma.pipeline.request import MAX_STEPS
from pixart_sigma.pipeline.samplers import SAMPLERS, make_scheduler
from tiny_pipeline import SCHEDULER

SPREAD = 1.5  # of latents that are normal and independent, for which the best prediction is known


def exact_prediction(latents: torch.Tensor, alpha_bar: float, prediction_type: str) -> torch.Tensor:
    """The mean of the noise, or of v, given noised latents whose clean ones are N(0, SPREAD²)."""
    signal, noise = math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)
    variance = (signal * SPREAD) ** 2 + noise**2
    clean_mean = latents * signal * SPREAD**2 / variance
    noise_mean = latents * noise / variance
    return noise_mean if prediction_type == "epsilon" else signal * noise_mean - noise * clean_mean


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_every_sampler_solves_the_same_equation(sampler: str, prediction_type: str) -> None:
    scheduler = make_scheduler(sampler, SCHEDULER | {"prediction_type": prediction_type})
    assert scheduler.config.prediction_type == prediction_type
    alpha_bars = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), dim=0)
    scheduler.set_timesteps(200)
    noise = torch.randn(1, 4, 8, 8)
    latents = noise * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        model_input = scheduler.scale_model_input(latents, timestep)
        prediction = exact_prediction(model_input, float(alpha_bars[int(timestep)]), prediction_type)
        latents = scheduler.step(prediction, timestep, latents, return_dict=False)[0]
    # The flow that turns unit noise into these latents multiplies by their spread.
    assert relative_error(latents, noise * SPREAD) < 0.05


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_schedules_come_from_the_folder(sampler: str) -> None:
    config = make_scheduler(sampler, SCHEDULER | {"beta_end": 0.03}).config
    assert (config.beta_end, config.beta_schedule, config.num_train_timesteps) == (0.03, "linear", 1000)


def test_the_default_keeps_the_released_configuration() -> None:
    config = make_scheduler("dpm-solver", SCHEDULER).config
    assert {key: config[key] for key in SCHEDULER if not key.startswith("_")} == {
        key: value for key, value in SCHEDULER.items() if not key.startswith("_")
    }


def test_an_unknown_sampler_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"unknown sampler 'magic'; one of dpm-solver, ddim"):
        make_scheduler("magic", SCHEDULER)


def test_a_configuration_that_makes_no_scheduler_is_the_folders_fault() -> None:
    with pytest.raises(WeightsError, match=r"scheduler_config\.json does not make a DPMSolver"):
        make_scheduler("dpm-solver", SCHEDULER | {"beta_schedule": "steep"})


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_most_steps_allowed_stay_finite(sampler: str) -> None:
    scheduler = make_scheduler(sampler, SCHEDULER)
    scheduler.set_timesteps(MAX_STEPS)
    latents = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    for timestep in scheduler.timesteps:
        model_input = scheduler.scale_model_input(latents, timestep)
        latents = scheduler.step(0.5 * model_input, timestep, latents, return_dict=False)[0]
    assert latents.isfinite().all()
