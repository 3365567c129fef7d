"""DPM-Solver++(2M) with the timesteps of the official code, which are fractional.

Legend: S steps.
It is diffusers' scheduler but for the times: t from 999 down to 0 in S equal strides, of which the model sees the
first S; log sqrt(ᾱ) is linear between whole timesteps; the last step ends at the noise of timestep 0, not at none,
and is of first order. Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import torch


def make_official_solver(config: Mapping[str, Any]) -> Any:
    """A scheduler_config.json's content, without `_class_name` → a scheduler with diffusers' interface."""
    settings = {
        "algorithm_type": "dpmsolver++",
        "solver_order": 2,
        "solver_type": "midpoint",
        "use_karras_sigmas": False,
        "final_sigmas_type": "sigma_min",
        "euler_at_final": True,
        "lower_order_final": True,
    }
    return _solver_class().from_config({**config, **settings})


@cache
def _solver_class() -> Any:
    """The class is made on demand, since importing its base takes seconds."""
    from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

    class OfficialSolver(DPMSolverMultistepScheduler):
        def set_timesteps(
            self, num_inference_steps: int, device: torch.device | str | None = None, **_: Any
        ) -> None:
            super().set_timesteps(num_inference_steps, device)
            last = self.config.num_train_timesteps - 1
            times = np.linspace(last, 0, num_inference_steps + 1)
            log_signal = 0.5 * np.log1p(-self.betas.double().cpu().numpy()).cumsum()
            log_signal = np.interp(times, np.arange(last + 1), log_signal)
            # sigma / alpha, as diffusers counts noise.
            noise = np.sqrt(np.expm1(-2 * log_signal))
            self.timesteps = torch.from_numpy(times[:-1].astype(np.float32)).to(device)
            self.sigmas = torch.from_numpy(noise.astype(np.float32))

    return OfficialSolver
