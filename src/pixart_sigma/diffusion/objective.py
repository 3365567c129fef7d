"""The training objective: squared error of the prediction and the variational bound of a learned variance.

The squared error is that of the noise (or velocity) as the model predicts it or, with `x0_below`, that of the clean
latents at the early timesteps and of the noise at the others.

Legend: B batch, C latent channels.
Knows nothing of the model, of how timesteps are drawn, or of reductions over the batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from pixart_sigma.diffusion.schedule import NoiseSchedule
from pixart_sigma.errors import InvalidInput

PredictionType = Literal["epsilon", "v_prediction"]

HALF_BIN = 1 / 255  # half of an 8-bit step over [-1, 1]: the width of the discretised likelihood at t = 0
EXTREME = 0.999  # beyond it a value is in the outermost, open bin
SMALLEST_PROBABILITY = 1e-12


@dataclass(frozen=True)
class Loss:
    """Per sample, each (B,) fp32; total = weight · mse + vb, the weight being 1 but for `min_snr_gamma`.

    mse is the squared error of the prediction, or of what `x0_below` names. vb is None where no variance is learned.
    """

    mse: Tensor
    vb: Tensor | None
    total: Tensor


def hybrid_loss(
    model_output: Tensor,
    latents: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    schedule: NoiseSchedule,
    prediction_type: PredictionType = "epsilon",
    min_snr_gamma: float | None = None,
    x0_below: int | None = None,
) -> Loss:
    """L_simple + L_vlb of Nichol & Dhariwal 2021, unscaled, as PixArt trains.

    model_output: (B, C, H, W), or (B, 2C, H, W) with the learned-range variance in the second half; latents
    and noise (B, C, H, W); timesteps (B,) int64. The bound teaches the variance alone: the mean in it
    carries no gradient.
    min_snr_gamma weights the squared error (Hang et al. 2023), not the bound.
    x0_below: the squared error is that of x0 for timesteps below it and that of the noise for the others, each computed
    from whatever the model predicts (250: the `snr` switch of the official training code, which knows epsilon alone).
    Raises InvalidInput for channels or a prediction_type that do not fit, for both weightings at once, and for an
    x0_below that switches nothing.
    """
    channels = latents.shape[1]
    if model_output.shape[1] not in (channels, 2 * channels):
        raise InvalidInput(
            f"the model's output has {model_output.shape[1]} channels; {channels} latent channels call for "
            f"{channels}, or {2 * channels} with learned variance"
        )
    if prediction_type not in get_args(PredictionType):
        raise InvalidInput(
            f"unknown prediction_type {prediction_type!r}; one of {', '.join(get_args(PredictionType))}"
        )
    if x0_below is not None:
        _check_x0_below(x0_below, min_snr_gamma, schedule.num_timesteps)
    model_output, latents, noise = model_output.float(), latents.float(), noise.float()
    prediction = model_output[:, :channels]
    signal = schedule.rows(schedule.alphas_cumprod.sqrt(), timesteps)
    amount = schedule.rows((1 - schedule.alphas_cumprod).sqrt(), timesteps)

    target = noise if prediction_type == "epsilon" else signal * noise - amount * latents
    mse = F.mse_loss(prediction, target, reduction="none").flatten(1).mean(1)
    if x0_below is not None:
        # An error of the prediction is one of x0 and one of the noise at once; only their sizes differ.
        as_x0 = amount / signal if prediction_type == "epsilon" else amount
        as_noise = torch.ones_like(signal) if prediction_type == "epsilon" else signal
        early = (timesteps < x0_below)[:, None, None, None]
        mse = mse * torch.where(early, as_x0, as_noise).square().flatten()
    total = mse
    if min_snr_gamma is not None:
        snr = (signal / amount).square().flatten()
        weight = snr.clamp(max=min_snr_gamma) / (snr if prediction_type == "epsilon" else snr + 1)
        total = weight * mse
    if model_output.shape[1] == channels:
        return Loss(mse=mse, vb=None, total=total)

    noised = signal * latents + amount * noise
    frozen = prediction.detach()
    noise_pred = frozen if prediction_type == "epsilon" else signal * frozen + amount * noised
    vb = _variational_bound(noise_pred, model_output[:, channels:], latents, noised, timesteps, schedule)
    return Loss(mse=mse, vb=vb, total=total + vb)


def _check_x0_below(x0_below: int, min_snr_gamma: float | None, num_timesteps: int) -> None:
    if min_snr_gamma is not None:
        raise InvalidInput(
            f"min_snr_gamma {min_snr_gamma} and x0_below {x0_below} both weight the squared error; remove one"
        )
    if not 1 <= x0_below <= num_timesteps:
        raise InvalidInput(
            f"x0_below is {x0_below}, outside 1 to {num_timesteps}; 250 is the official value, none leaves it out"
        )


def _variational_bound(
    noise_pred: Tensor,
    variance_range: Tensor,
    latents: Tensor,
    noised: Tensor,
    timesteps: Tensor,
    schedule: NoiseSchedule,
) -> Tensor:
    """One term of the bound per sample, bits per dimension, (B,): a KL, or at t = 0 the likelihood of x[0].

    variance_range -1 … 1 spans, in log, from the posterior's variance to beta (Nichol & Dhariwal 2021,
    equation 15).
    """
    signal_inverse = schedule.rows(schedule.alphas_cumprod.rsqrt(), timesteps)
    noise_ratio = schedule.rows((1 / schedule.alphas_cumprod - 1).sqrt(), timesteps)
    mean_latents = schedule.rows(schedule.posterior_mean_latents, timesteps)
    mean_noised = schedule.rows(schedule.posterior_mean_noised, timesteps)
    smallest = schedule.rows(schedule.posterior_log_variance, timesteps)
    largest = schedule.rows(schedule.betas.log(), timesteps)

    fraction = (variance_range + 1) / 2
    log_variance = fraction * largest + (1 - fraction) * smallest
    latents_pred = signal_inverse * noised - noise_ratio * noise_pred
    mean_pred = mean_latents * latents_pred + mean_noised * noised
    mean_true = mean_latents * latents + mean_noised * noised

    kl = 0.5 * (
        log_variance
        - smallest
        + (smallest - log_variance).exp()
        + (mean_true - mean_pred).square() * (-log_variance).exp()
        - 1
    )
    likelihood = _discretised_log_likelihood(latents, mean_pred, 0.5 * log_variance)
    nats = torch.where((timesteps == 0)[:, None, None, None], -likelihood, kl)
    return nats.flatten(1).mean(1) / math.log(2)


def _normal_cdf(values: Tensor) -> Tensor:
    """The tanh approximation with which the published models were trained."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (values + 0.044715 * values**3)))


def _discretised_log_likelihood(values: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
    """Log probability of the 8-bit bin around each value under a normal law; the outermost bins are open."""
    centred = values - means
    precision = (-log_scales).exp()
    below_upper = _normal_cdf(precision * (centred + HALF_BIN))
    below_lower = _normal_cdf(precision * (centred - HALF_BIN))
    probability = torch.where(
        values < -EXTREME,
        below_upper,
        torch.where(values > EXTREME, 1 - below_lower, below_upper - below_lower),
    )
    return probability.clamp(min=SMALLEST_PROBABILITY).log()
