"""DPM-Solver++(2M) (Lu et al. 2022), the sampler that PixArt-α and Σ are released with.

Legend: B pictures, C latent channels, h, w latents, S steps, T training steps (1000).
It has the interface of a diffusers scheduler, and its default schedule is that of diffusers'
`DPMSolverMultistepScheduler` as released. It is here because importing that library takes longer than a small picture.
Knows nothing of models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

_ALWAYS: dict[str, Any] = {
    "thresholding": False,
    "use_flow_sigmas": False,
    "use_dynamic_shifting": False,
    "rescale_betas_zero_snr": False,
    "trained_betas": None,
}
"""What config.json may say of the noise and of the picture."""
_SETTINGS: dict[str, Any] = _ALWAYS | {
    "algorithm_type": "dpmsolver++",
    "solver_order": 2,
    "solver_type": "midpoint",
    "lower_order_final": True,
    "euler_at_final": False,
    "final_sigmas_type": "zero",
    "timestep_spacing": "linspace",
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "use_lu_lambdas": False,
}
"""What it may say at all; these are the released settings, and also what diffusers takes where it says nothing."""


class DPMSolver:
    """Second order, of several steps, in terms of the picture that the model predicts; first and last step of first
    order. Remembers one step: to be copied for each picture.
    """

    init_noise_sigma = 1.0

    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        prediction_type: str = "epsilon",
        *,
        fractional_timesteps: bool = False,
    ) -> None:
        """beta_schedule: linear or scaled_linear. prediction_type: epsilon or v_prediction.

        fractional_timesteps: the official code's. They go from T - 1 down to 0 in S equal strides, of which the model
        sees the first S; log sqrt(ᾱ) is linear between whole ones; the last step ends at the noise of timestep 0, not
        at none. Raises ValueError for another schedule or prediction.
        """
        if beta_schedule not in ("linear", "scaled_linear"):
            raise ValueError(f"beta_schedule is {beta_schedule!r}, not linear or scaled_linear")
        if not 0 < beta_start <= beta_end < 1 or num_train_timesteps < 2:
            given = f"{beta_start}, {beta_end} and {num_train_timesteps}"
            raise ValueError(f"beta_start, beta_end and num_train_timesteps are {given}")
        if prediction_type not in ("epsilon", "v_prediction"):
            raise ValueError(f"prediction_type is {prediction_type!r}, not epsilon or v_prediction")
        self.config: Mapping[str, Any] = {
            **_SETTINGS,
            "num_train_timesteps": num_train_timesteps,
            "beta_start": beta_start,
            "beta_end": beta_end,
            "beta_schedule": beta_schedule,
            "prediction_type": prediction_type,
        }
        self.prediction_type = prediction_type
        self.fractional_timesteps = fractional_timesteps
        root = 0.5 if beta_schedule == "scaled_linear" else 1.0
        betas = torch.linspace(beta_start**root, beta_end**root, num_train_timesteps) ** (1 / root)
        # In fp32 as diffusers has it, and in double precision for the official schedule.
        self._alpha_bar = torch.cumprod(1 - betas, 0).double().numpy()
        self._log_signal = 0.5 * np.log1p(-betas.double().numpy()).cumsum()
        self.timesteps = torch.empty(0)
        self._noise = np.zeros(0)
        self._index = 0
        self._last_picture: Tensor | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, fractional_timesteps: bool = False) -> Self:
        """A scheduler_config.json's content → DPMSolver.

        What would make it another solver or another schedule raises ValueError; official timesteps are what they are
        whatever the configuration says of spacing and ends.
        """
        expected = _ALWAYS if fractional_timesteps else _SETTINGS | {"lambda_min_clipped": -math.inf}
        for name, value in expected.items():
            if config.get(name, value) != value:
                raise ValueError(f"{name} is {config[name]!r}, not {value!r}")
        names = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type")
        known = {name: config[name] for name in names if name in config}
        return cls(**known, fractional_timesteps=fractional_timesteps)

    def set_timesteps(self, num_inference_steps: int, device: torch.device | str | None = None) -> None:
        """Begin: `timesteps` (S,) are those that the model shall see."""
        last = len(self._alpha_bar) - 1
        times = np.linspace(0, last, num_inference_steps + 1)[::-1]
        places = np.arange(last + 1)
        if self.fractional_timesteps:
            log_signal = np.interp(times, places, self._log_signal)
            self._noise = np.sqrt(np.expm1(-2 * log_signal))
            self.timesteps = torch.from_numpy(times[:-1].astype(np.float32)).to(device)
        else:
            whole = times.round()[:-1].astype(np.int64)
            self._noise = np.append(np.sqrt((1 - self._alpha_bar) / self._alpha_bar)[whole], 0.0)
            self.timesteps = torch.from_numpy(whole).to(device)
        self._index, self._last_picture = 0, None

    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """The model sees latents as they are."""
        return sample

    def step(
        self, model_output: Tensor, timestep: Tensor, sample: Tensor, return_dict: bool = False
    ) -> tuple[Tensor]:
        """model_output and sample (B, C, h, w) of the next of `timesteps` → (the latents after it (B, C, h, w),)."""
        index, total = self._index, len(self._noise) - 1
        signal, noise = _parts(self._noise[index])
        if self.prediction_type == "epsilon":
            picture = (sample - noise * model_output) / signal
        else:
            picture = signal * sample - noise * model_output
        next_signal, next_noise = _parts(self._noise[index + 1])
        # In log signal-to-noise: the stride of this step, e to the power of which is what is left of the old latents.
        left = self._noise[index + 1] / self._noise[index]
        direction = picture
        if 0 < index < total - 1:
            assert self._last_picture is not None
            stride = -math.log(left)
            last_stride = math.log(self._noise[index - 1] / self._noise[index])
            direction = picture + 0.5 * (stride / last_stride) * (picture - self._last_picture)
        self._index, self._last_picture = index + 1, picture
        return ((next_noise / noise) * sample + next_signal * (1 - left) * direction,)


def _parts(noise_ratio: float) -> tuple[float, float]:
    """sigma / alpha → (alpha, sigma), whose squares add up to 1."""
    signal = float(1 / math.sqrt(noise_ratio**2 + 1))
    return signal, float(noise_ratio * signal)
