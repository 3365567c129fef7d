import math
from typing import Any

import pytest
import torch

from comparison import relative_error
from pixart_sigma.errors import InvalidInput, WeightsError
from pixart_sigma.pipeline.noise import picture_generators
from pixart_sigma.pipeline.samplers import (
    MAX_STEPS,
    OWN_SAMPLERS,
    SAMPLERS,
    kinds_of,
    make_scheduler,
)
from pixart_sigma.weights.catalogue import release_named
from tiny_pipeline import SCHEDULER

SPREAD = 1.5  # of latents that are normal and independent, for which the best prediction is known
MANY_STEP = [name for name, sampler in SAMPLERS.items() if sampler.kind == "many-step"]
DETERMINISTIC = [name for name in MANY_STEP if name != "sa-solver"]
ALPHA_BARS = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), dim=0)
PREDICTION_TYPES = pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])


def exact_prediction(latents: torch.Tensor, alpha_bar: float, prediction_type: str) -> torch.Tensor:
    """The mean of the noise, or of v, given noised latents whose clean ones are N(0, SPREAD²)."""
    signal, noise = math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)
    variance = (signal * SPREAD) ** 2 + noise**2
    clean_mean = latents * signal * SPREAD**2 / variance
    noise_mean = latents * noise / variance
    return noise_mean if prediction_type == "epsilon" else signal * noise_mean - noise * clean_mean


def consistent_prediction(latents: torch.Tensor, alpha_bar: float, prediction_type: str) -> torch.Tensor:
    """The noise, or v, that says where the flow to N(0, SPREAD²) leads: what a distilled model predicts."""
    signal, noise = math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)
    clean = latents * SPREAD / math.sqrt((signal * SPREAD) ** 2 + noise**2)
    predicted = (latents - signal * clean) / noise
    return predicted if prediction_type == "epsilon" else (signal * latents - clean) / noise


def solved(
    sampler: str, prediction_type: str, steps: int, noise: torch.Tensor, predict: Any = exact_prediction
) -> torch.Tensor:
    scheduler = make_scheduler(sampler, SCHEDULER | {"prediction_type": prediction_type})
    scheduler.set_timesteps(steps)
    random = {"generator": torch.Generator().manual_seed(1)} if sampler in ("sa-solver", "lcm") else {}
    latents = noise * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        model_input = scheduler.scale_model_input(latents, timestep)
        prediction = predict(model_input, float(ALPHA_BARS[int(timestep)]), prediction_type)
        latents = scheduler.step(prediction, timestep, latents, return_dict=False, **random)[0]
    return latents


@pytest.mark.parametrize("sampler", DETERMINISTIC)
@PREDICTION_TYPES
def test_every_sampler_solves_the_same_equation(sampler: str, prediction_type: str) -> None:
    noise = torch.randn(1, 4, 8, 8)
    # The flow that turns unit noise into these latents multiplies by their spread.
    assert relative_error(solved(sampler, prediction_type, 200, noise), noise * SPREAD) < 0.05


@PREDICTION_TYPES
def test_the_stochastic_sampler_ends_in_the_same_distribution(prediction_type: str) -> None:
    noise = torch.randn(4, 4, 64, 64)
    latents = solved("sa-solver", prediction_type, 200, noise)
    assert float(latents.std()) == pytest.approx(SPREAD, rel=0.02)
    # What it drew on the way took the place of part of the noise that it began with.
    correlation = float((latents * noise).mean() / latents.std() / noise.std())
    assert 0 < correlation < 0.9


@PREDICTION_TYPES
@pytest.mark.parametrize("steps", [1, 4])
def test_a_consistency_model_keeps_the_distribution_in_few_steps(prediction_type: str, steps: int) -> None:
    latents = solved("lcm", prediction_type, steps, torch.randn(4, 4, 64, 64), consistent_prediction)
    assert float(latents.std()) == pytest.approx(SPREAD, rel=0.02)


@PREDICTION_TYPES
def test_a_consistency_model_is_exact_in_one_step(prediction_type: str) -> None:
    noise = torch.randn(1, 4, 8, 8)
    latents = solved("lcm", prediction_type, 1, noise, consistent_prediction)
    variance = float(ALPHA_BARS[999]) * SPREAD**2 + 1 - float(ALPHA_BARS[999])
    assert relative_error(latents, noise * SPREAD / math.sqrt(variance)) < 1e-3


@PREDICTION_TYPES
def test_one_step_is_the_formula_at_timestep_400(prediction_type: str) -> None:
    noise, predicted = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    alpha_bar = float(ALPHA_BARS[400])
    seen = []

    def predict(latents: torch.Tensor, at: float, _: str) -> torch.Tensor:
        seen.append((latents, at))
        return predicted

    latents = solved("dmd", prediction_type, 1, noise, predict)
    assert len(seen) == 1
    assert torch.equal(seen[0][0], noise)
    assert seen[0][1] == pytest.approx(alpha_bar)
    signal, amount = math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)
    expected = (noise - amount * predicted) / signal
    if prediction_type == "v_prediction":
        expected = signal * noise - amount * predicted
    assert relative_error(latents, expected) <= 1e-6


@pytest.mark.parametrize("sampler", ["sa-solver", "lcm"])
def test_noise_on_the_way_is_each_pictures_own(sampler: str) -> None:
    def last(*seeds: int) -> torch.Tensor:
        scheduler = make_scheduler(sampler, SCHEDULER)
        scheduler.set_timesteps(4)
        generators = picture_generators(seeds)
        latents = torch.ones(len(seeds), 4, 4, 4)
        for timestep in scheduler.timesteps:
            latents = scheduler.step(
                0.5 * latents, timestep, latents, generator=generators, return_dict=False
            )[0]
        return latents

    together = last(5, 6)
    assert torch.equal(together[0], last(5)[0])
    assert torch.equal(together[1], last(6)[0])
    assert not torch.equal(together[0], together[1])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_schedules_come_from_the_folder(sampler: str) -> None:
    config = make_scheduler(sampler, SCHEDULER | {"beta_end": 0.03}).config
    assert (config["beta_end"], config["beta_schedule"], config["num_train_timesteps"]) == (
        0.03,
        "linear",
        1000,
    )


def test_the_default_keeps_the_released_configuration() -> None:
    config = make_scheduler("dpm++-2m", SCHEDULER).config
    assert {key: config[key] for key in SCHEDULER if not key.startswith("_")} == {
        key: value for key, value in SCHEDULER.items() if not key.startswith("_")
    }


@pytest.mark.parametrize("kind", ["lcm", "dmd"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_another_classs_configuration_is_read_without_a_word(
    kind: str, sampler: str, capfd: pytest.CaptureFixture[str]
) -> None:
    released = dict(release_named({"lcm": "alpha-1024-lcm", "dmd": "alpha-512-dmd"}[kind]).sampling.scheduler)
    assert make_scheduler(sampler, released).config["beta_end"] == 0.02
    assert capfd.readouterr() == ("", "")


def test_an_unknown_sampler_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"unknown sampler 'magic'; one of dpm\+\+-2m, dpm\+\+-2m-karras"):
        make_scheduler("magic", SCHEDULER)


@pytest.mark.parametrize(
    ("sampler", "class_name"), [("dpm++-2m", "DPMSolverMultistepScheduler"), ("dmd", "OneStepScheduler")]
)
def test_a_configuration_that_makes_no_scheduler_is_the_folders_fault(sampler: str, class_name: str) -> None:
    with pytest.raises(WeightsError, match=rf"scheduler_config\.json does not make a {class_name}"):
        make_scheduler(sampler, SCHEDULER | {"beta_schedule": "steep"})


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_most_steps_allowed_stay_finite(sampler: str) -> None:
    scheduler = make_scheduler(sampler, SCHEDULER)
    scheduler.set_timesteps(SAMPLERS[sampler].max_steps)
    assert SAMPLERS[sampler].max_steps <= MAX_STEPS
    latents = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    for timestep in scheduler.timesteps:
        model_input = scheduler.scale_model_input(latents, timestep)
        latents = scheduler.step(0.5 * model_input, timestep, latents, return_dict=False)[0]
    assert latents.isfinite().all()


def test_weights_are_sampled_as_released_or_as_their_scheduler_says() -> None:
    assert kinds_of(release_named("sigma-512"), {}) == ("many-step",)
    assert kinds_of(release_named("alpha-1024-lcm"), {"_class_name": "DPMSolverMultistepScheduler"}) == (
        "lcm",
    )
    assert kinds_of(release_named("alpha-512-dmd"), {}) == ("dmd",)
    assert kinds_of(None, SCHEDULER) == ("many-step",)
    assert kinds_of(None, {"_class_name": "LCMScheduler"}) == ("lcm",)
    assert kinds_of(None, {"_class_name": "DDPMScheduler"}) == ("many-step", "dmd")
    assert kinds_of(None, SCHEDULER, adapted=True) == ("many-step", "lcm")
    assert {SAMPLERS[name].kind for name in OWN_SAMPLERS.values()} == set(OWN_SAMPLERS)
    assert all(SAMPLERS[name].kind == kind for kind, name in OWN_SAMPLERS.items())
