"""The forward process: how much noise each of the training timesteps carries.

Legend: T timesteps, B batch.
Knows nothing of models or samplers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pixart_sigma.errors import InvalidInput


@dataclass(frozen=True)
class NoiseSchedule:
    """Tables (T,) in float64, kept on one device; `rows` gathers and rounds them for a batch.

    betas: variance added at each step. alphas_cumprod: share of the signal's variance left.
    posterior_log_variance: log variance of q(x[t-1] | x[t], x[0]), whose zero at t = 0 is replaced by that
    at t = 1.
    posterior_mean_latents, posterior_mean_noised: weights of x[0] and x[t] in that posterior's mean (Ho et
    al. 2020, equation 7).
    """

    betas: Tensor
    alphas_cumprod: Tensor
    posterior_log_variance: Tensor
    posterior_mean_latents: Tensor
    posterior_mean_noised: Tensor

    @classmethod
    def from_betas(cls, betas: Tensor) -> NoiseSchedule:
        """betas (T,), each in (0, 1)."""
        betas = betas.double()
        if betas.ndim != 1 or len(betas) < 2 or not bool(((betas > 0) & (betas < 1)).all()):
            raise InvalidInput("betas must be a list of at least 2 numbers between 0 and 1, both excluded")
        alphas = 1 - betas
        alphas_cumprod = alphas.cumprod(0)
        previous = torch.cat([alphas_cumprod.new_ones(1), alphas_cumprod[:-1]])
        posterior_variance = betas * (1 - previous) / (1 - alphas_cumprod)
        return cls(
            betas=betas,
            alphas_cumprod=alphas_cumprod,
            posterior_log_variance=torch.cat([posterior_variance[1:2], posterior_variance[1:]]).log(),
            posterior_mean_latents=betas * previous.sqrt() / (1 - alphas_cumprod),
            posterior_mean_noised=(1 - previous) * alphas.sqrt() / (1 - alphas_cumprod),
        )

    @property
    def num_timesteps(self) -> int:
        return len(self.betas)

    def to(self, device: torch.device | str) -> NoiseSchedule:
        """The same tables on another device, so that training there gathers without a copy."""
        return NoiseSchedule(**{name: table.to(device) for name, table in vars(self).items()})

    def rows(self, table: Tensor, timesteps: Tensor) -> Tensor:
        """Entries of a (T,) table at timesteps (B,) int64 → (B, 1, 1, 1) fp32 on the timesteps' device."""
        return table[timesteps.to(table.device)].to(timesteps.device, torch.float32)[:, None, None, None]

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """sqrt(ᾱ) latents + sqrt(1 - ᾱ) noise; both (B, C, H, W), timesteps (B,) int64 → (B, C, H, W)."""
        signal = self.rows(self.alphas_cumprod.sqrt(), timesteps)
        amount = self.rows((1 - self.alphas_cumprod).sqrt(), timesteps)
        return signal * latents + amount * noise


def linear_schedule(
    num_timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02
) -> NoiseSchedule:
    """The schedule of every released PixArt model (Ho et al. 2020)."""
    return NoiseSchedule.from_betas(torch.linspace(beta_start, beta_end, num_timesteps, dtype=torch.float64))
