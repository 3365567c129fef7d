import pytest
import torch

from comparison import load_golden, relative_error
from pixart_sigma.diffusion import hybrid_loss, linear_schedule
from pixart_sigma.errors import InvalidInput


@pytest.fixture(scope="module")
def golden():
    return load_golden("training_loss")[0]


def inputs(golden):
    return golden["input.latents"], golden["input.noise"], golden["input.timestep"]


def test_golden(golden):
    latents, noise, timesteps = inputs(golden)
    schedule = linear_schedule()
    assert relative_error(schedule.add_noise(latents, noise, timesteps), golden["noised_latents"]) <= 1e-5
    loss = hybrid_loss(golden["input.model_output"], latents, noise, timesteps, schedule)
    for row, timestep in enumerate(timesteps.tolist()):
        for name, ours in {"mse": loss.mse, "vb": loss.vb, "loss": loss.total}.items():
            expected = golden[f"output.{name}"][row]
            assert relative_error(ours[row], expected) <= 1e-5, (name, timestep)


def test_bound_teaches_the_variance_alone(golden):
    latents, noise, timesteps = inputs(golden)
    output = golden["input.model_output"].clone().requires_grad_()
    hybrid_loss(output, latents, noise, timesteps, linear_schedule()).vb.sum().backward()
    assert not output.grad[:, :4].any()
    assert (output.grad[:, 4:].flatten(1).abs().amax(1) > 0).all()


def test_squared_error_teaches_the_mean_alone(golden):
    latents, noise, timesteps = inputs(golden)
    output = golden["input.model_output"].clone().requires_grad_()
    hybrid_loss(output, latents, noise, timesteps, linear_schedule()).mse.sum().backward()
    assert output.grad[:, :4].any()
    assert not output.grad[:, 4:].any()


def test_velocity_is_the_same_bound_as_the_noise_it_stands_for(golden):
    """The velocity of a noise prediction says the same about the latents, so the bound must agree."""
    latents, noise, timesteps = inputs(golden)
    schedule = linear_schedule()
    noised = schedule.add_noise(latents, noise, timesteps)
    later = timesteps >= 17  # earlier, the velocity is a difference of nearly equal numbers
    noise_pred, variance = golden["input.model_output"].chunk(2, dim=1)
    alphas = schedule.alphas_cumprod[timesteps].float()[:, None, None, None]
    velocity = (noise_pred - (1 - alphas).sqrt() * noised) / alphas.sqrt()
    as_noise = hybrid_loss(golden["input.model_output"], latents, noise, timesteps, schedule)
    as_velocity = hybrid_loss(
        torch.cat([velocity, variance], 1),
        latents,
        noise,
        timesteps,
        schedule,
        prediction_type="v_prediction",
    )
    assert relative_error(as_velocity.vb[later], as_noise.vb[later]) <= 1e-3


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_perfect_prediction_has_no_error(golden, prediction_type):
    latents, noise, timesteps = inputs(golden)
    schedule = linear_schedule()
    alphas = schedule.alphas_cumprod[timesteps].float()[:, None, None, None]
    velocity = alphas.sqrt() * noise - (1 - alphas).sqrt() * latents
    perfect = noise if prediction_type == "epsilon" else velocity
    loss = hybrid_loss(perfect, latents, noise, timesteps, schedule, prediction_type)
    assert loss.vb is None
    assert loss.total.abs().max() < 1e-10
    assert loss.total.shape == (8,)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_min_snr_weights_the_squared_error(golden, prediction_type):
    latents, noise, timesteps = inputs(golden)
    schedule = linear_schedule()
    output = golden["input.model_output"][:, :4]
    loss = hybrid_loss(output, latents, noise, timesteps, schedule, prediction_type, min_snr_gamma=5.0)
    alphas = schedule.alphas_cumprod[timesteps]
    snr = alphas / (1 - alphas)
    divisor = snr if prediction_type == "epsilon" else snr + 1
    weight = (snr.clamp(max=5.0) / divisor).float()
    assert relative_error(loss.total, weight * loss.mse) <= 1e-5
    assert weight.min() < 0.5  # the case is not trivial


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_x0_below_measures_the_clean_latents_early_and_the_noise_late(golden, prediction_type):
    """The predicted x0 and noise spelt out, in float64, for timesteps on both sides of the switch and at it."""
    latents, noise, output = (
        golden[name].double() for name in ("input.latents", "input.noise", "input.model_output")
    )
    timesteps = torch.tensor([0, 1, 100, 249, 250, 251, 700, 999])
    schedule = linear_schedule()
    alphas = schedule.alphas_cumprod[timesteps][:, None, None, None]
    noised = alphas.sqrt() * latents + (1 - alphas).sqrt() * noise
    prediction = output[:, :4]
    if prediction_type == "epsilon":
        noise_pred = prediction
        latents_pred = noised / alphas.sqrt() - (1 / alphas - 1).sqrt() * prediction
    else:
        noise_pred = alphas.sqrt() * prediction + (1 - alphas).sqrt() * noised
        latents_pred = alphas.sqrt() * noised - (1 - alphas).sqrt() * prediction
    early = (timesteps < 250)[:, None, None, None]
    error = torch.where(early, latents_pred - latents, noise_pred - noise).square().flatten(1).mean(1)

    arguments = (output.float(), latents.float(), noise.float(), timesteps, schedule, prediction_type)
    loss = hybrid_loss(*arguments, x0_below=250)
    plain = hybrid_loss(*arguments)
    for row, timestep in enumerate(timesteps.tolist()):
        assert relative_error(loss.mse[row].double(), error[row]) <= 1e-5, timestep
    assert torch.equal(loss.vb, plain.vb)
    assert torch.equal(loss.total, loss.mse + loss.vb)
    if prediction_type == "epsilon":
        assert torch.equal(loss.mse[4:], plain.mse[4:])
    assert not torch.isclose(loss.mse[:4], plain.mse[:4], rtol=0.05).any()


def test_x0_of_every_timestep(golden):
    latents, noise, timesteps = inputs(golden)
    schedule = linear_schedule()
    alphas = schedule.alphas_cumprod[timesteps].float()
    arguments = (golden["input.model_output"][:, :4], latents, noise, timesteps, schedule)
    everywhere = hybrid_loss(*arguments, x0_below=1000)
    assert relative_error(everywhere.mse, (1 / alphas - 1) * hybrid_loss(*arguments).mse) <= 1e-5


def test_half_precision_output_is_summed_in_fp32(golden):
    latents, noise, timesteps = inputs(golden)
    output = golden["input.model_output"].bfloat16()
    loss = hybrid_loss(output, latents, noise, timesteps, linear_schedule())
    expected = hybrid_loss(output.float(), latents, noise, timesteps, linear_schedule())
    assert loss.total.dtype == torch.float32
    assert torch.equal(loss.total, expected.total)


def test_refusals(golden):
    latents, noise, timesteps = inputs(golden)
    with pytest.raises(InvalidInput, match="6 channels"):
        hybrid_loss(golden["input.model_output"][:, :6], latents, noise, timesteps, linear_schedule())
    with pytest.raises(InvalidInput, match="prediction_type 'sample'"):
        hybrid_loss(golden["input.model_output"], latents, noise, timesteps, linear_schedule(), "sample")
    arguments = (golden["input.model_output"], latents, noise, timesteps, linear_schedule())
    with pytest.raises(InvalidInput, match=r"min_snr_gamma 5\.0 and x0_below 250 both"):
        hybrid_loss(*arguments, min_snr_gamma=5.0, x0_below=250)
    for x0_below in (0, 1001):
        with pytest.raises(InvalidInput, match=f"x0_below is {x0_below}, outside 1 to 1000"):
            hybrid_loss(*arguments, x0_below=x0_below)
