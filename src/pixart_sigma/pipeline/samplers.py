"""Samplers by name: diffusers schedulers, made from the configuration of the model's own.

Only samplers that draw no noise on the way, so that a picture depends on its seed alone. Knows nothing of the
model; the noise schedule and the prediction type are its folder's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from pixart_sigma.errors import InvalidInput, WeightsError


@dataclass(frozen=True)
class Sampler:
    """A diffusers scheduler class, by module, and what it needs beside the folder's configuration."""

    module: str
    class_name: str
    settings: Mapping[str, Any] = field(default_factory=dict)


DEFAULT_SAMPLER = "dpm-solver"
SAMPLERS = {
    "dpm-solver": Sampler("scheduling_dpmsolver_multistep", "DPMSolverMultistepScheduler"),
    # DDIM clips its estimate of the picture to [-1, 1] unless told that these are latents.
    "ddim": Sampler("scheduling_ddim", "DDIMScheduler", {"clip_sample": False}),
    "euler": Sampler("scheduling_euler_discrete", "EulerDiscreteScheduler"),
    "unipc": Sampler("scheduling_unipc_multistep", "UniPCMultistepScheduler"),
}


def make_scheduler(sampler: str, config: Mapping[str, Any]) -> Any:
    """A name from `SAMPLERS` and a scheduler_config.json's content → a diffusers scheduler.

    Raises InvalidInput for an unknown name, WeightsError for a configuration that makes no scheduler.
    """
    if sampler not in SAMPLERS:
        raise InvalidInput(f"unknown sampler {sampler!r}; one of {', '.join(SAMPLERS)}")
    chosen = SAMPLERS[sampler]
    scheduler_class = getattr(import_module(f"diffusers.schedulers.{chosen.module}"), chosen.class_name)
    # `_class_name` names the folder's own class; beside another one it would only provoke a warning.
    settings = {key: value for key, value in config.items() if not key.startswith("_")}
    try:
        return scheduler_class.from_config({**settings, **chosen.settings})
    except (NotImplementedError, TypeError, ValueError) as error:
        raise WeightsError(
            f"scheduler_config.json does not make a {chosen.class_name} ({error}); fetch or export it again"
        ) from error
