"""Sampling in one step, as models distilled by distribution matching (DMD) do.

Legend: B pictures, C latent channels, h, w latents.
It has the interface of a diffusers scheduler. Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

# The released DMD model was trained to start there (PixArt-Σ's scripts for DMD).
FIRST_TIMESTEP = 400


class OneStepScheduler:
    """From unit noise z straight to x0 = (z - sqrt(1 - ᾱ) eps) / sqrt(ᾱ), with ᾱ that of `FIRST_TIMESTEP`.

    The noise has unit variance although ᾱ is not 0 there, as in training.
    """

    init_noise_sigma = 1.0

    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        prediction_type: str = "epsilon",
    ) -> None:
        """Raises ValueError for what no DMD model is."""
        if beta_schedule != "linear" or prediction_type not in ("epsilon", "v_prediction"):
            raise ValueError(f"beta_schedule {beta_schedule!r} and prediction_type {prediction_type!r}")
        self.config: Mapping[str, Any] = {
            "num_train_timesteps": num_train_timesteps,
            "beta_start": beta_start,
            "beta_end": beta_end,
            "beta_schedule": beta_schedule,
            "prediction_type": prediction_type,
        }
        self.prediction_type = prediction_type
        betas = torch.linspace(beta_start, beta_end, num_train_timesteps, dtype=torch.float64)
        self.alpha_bar = float((1 - betas).cumprod(0)[FIRST_TIMESTEP])
        self.timesteps = torch.tensor([FIRST_TIMESTEP])

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> OneStepScheduler:
        return cls(**config)

    def set_timesteps(self, num_inference_steps: int, device: torch.device | str | None = None) -> None:
        """Raises ValueError unless one step is asked for."""
        if num_inference_steps != 1:
            raise ValueError(f"{num_inference_steps} steps")
        self.timesteps = self.timesteps.to(device)

    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor:
        return sample

    def step(
        self, model_output: Tensor, timestep: Tensor, sample: Tensor, return_dict: bool = False
    ) -> tuple[Tensor]:
        """model_output and sample (B, C, h, w) → (the latents (B, C, h, w),)."""
        signal, noise = self.alpha_bar**0.5, (1 - self.alpha_bar) ** 0.5
        if self.prediction_type == "v_prediction":
            return (signal * sample - noise * model_output,)
        return ((sample - noise * model_output) / signal,)
