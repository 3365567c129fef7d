import pytest
import torch

from pixart_sigma.diffusion import NoiseSchedule, linear_schedule
from pixart_sigma.errors import InvalidInput


def test_tables_are_those_of_diffusers():
    from diffusers import DDPMScheduler

    reference = DDPMScheduler(
        num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear"
    )
    schedule = linear_schedule()
    assert schedule.num_timesteps == 1000
    assert schedule.alphas_cumprod.dtype == torch.float64
    assert torch.allclose(schedule.alphas_cumprod.float(), reference.alphas_cumprod, rtol=1e-4)
    latents, noise = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2)
    timesteps = torch.tensor([0, 500, 999])
    ours = schedule.add_noise(latents, noise, timesteps)
    assert torch.allclose(ours, reference.add_noise(latents, noise, timesteps), atol=1e-5)


def test_posterior_is_bayes_rule():
    """q(x[t-1] | x[t], x[0]) from the two Gaussians it is made of, at one timestep."""
    schedule = linear_schedule()
    step = 300
    beta, previous = schedule.betas[step], schedule.alphas_cumprod[step - 1]
    precision = (1 - beta) / beta + 1 / (1 - previous)
    assert torch.allclose(schedule.posterior_log_variance[step], -precision.log())
    assert torch.allclose(schedule.posterior_mean_latents[step], previous.sqrt() / (1 - previous) / precision)
    assert torch.allclose(schedule.posterior_mean_noised[step], (1 - beta).sqrt() / beta / precision)
    assert schedule.posterior_log_variance[0] == schedule.posterior_log_variance[1]
    assert torch.isfinite(schedule.posterior_log_variance).all()


def test_to_keeps_tables():
    schedule = linear_schedule(10)
    moved = schedule.to("cpu")
    assert all(torch.equal(table, getattr(moved, name)) for name, table in vars(schedule).items())


@pytest.mark.parametrize("betas", [[0.1], [0.1, 1.0], [0.0, 0.1], [0.1, float("nan")]])
def test_impossible_betas_are_refused(betas):
    with pytest.raises(InvalidInput, match="between 0 and 1"):
        NoiseSchedule.from_betas(torch.tensor(betas))
