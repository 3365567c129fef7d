"""Samplers by their usual names: schedulers, made from the configuration of the model's own.

The noise schedule and the prediction type are the model's. Samplers that draw noise on the way take it from each
picture's own generator, so a picture depends on its seed alone. Knows nothing of the model.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from pixart_sigma.errors import InvalidInput, WeightsError
from pixart_sigma.pipeline.profiles import DIFFUSERS, Profile
from pixart_sigma.weights.catalogue import Release, SamplingKind, releases
from pixart_sigma.weights.folder import PipelineFolders, scheduler_config

# Released settings (Σ inference: 20 steps of DPM-Solver++, guidance 4.5; SA-Solver: 25 steps).
DEFAULT_STEPS = 20
DEFAULT_GUIDANCE_SCALE = 4.5
MAX_STEPS = 999  # with all 1000 timesteps diffusers' DPM-Solver repeats one, and divides by zero


@dataclass(frozen=True)
class Sampler:
    """A scheduler's class, by module, what it needs beside the model's configuration, and what it does best with.

    kind: which weights it is for. Only many-step sampling is guided.
    """

    module: str
    class_name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    steps: int = DEFAULT_STEPS
    min_steps: int = 1
    max_steps: int = MAX_STEPS
    kind: SamplingKind = "many-step"

    @property
    def guidance_scale(self) -> float:
        """The usual one; 1 is none."""
        return DEFAULT_GUIDANCE_SCALE if self.kind == "many-step" else 1.0


_DPM_SOLVER = ("diffusers.schedulers.scheduling_dpmsolver_multistep", "DPMSolverMultistepScheduler")
DEFAULT_SAMPLER = "dpm++-2m"
SAMPLERS = {
    "dpm++-2m": Sampler(*_DPM_SOLVER),
    "dpm++-2m-karras": Sampler(*_DPM_SOLVER, {"use_karras_sigmas": True}),
    # Stochastic between timesteps 200 and 800, as released with PixArt-α.
    "sa-solver": Sampler(
        "diffusers.schedulers.scheduling_sasolver",
        "SASolverScheduler",
        {"algorithm_type": "data_prediction"},
        steps=25,
    ),
    # DDIM clips its estimate of the picture to [-1, 1] unless told that these are latents.
    # A single step of these two would be that from timestep 0, where nothing is left to do.
    "ddim": Sampler(
        "diffusers.schedulers.scheduling_ddim", "DDIMScheduler", {"clip_sample": False}, min_steps=2
    ),
    "euler": Sampler("diffusers.schedulers.scheduling_euler_discrete", "EulerDiscreteScheduler", min_steps=2),
    "unipc": Sampler("diffusers.schedulers.scheduling_unipc_multistep", "UniPCMultistepScheduler"),
    # 50: the steps of the solver that LCM models are distilled from; they know no other timesteps.
    "lcm": Sampler(
        "diffusers.schedulers.scheduling_lcm",
        "LCMScheduler",
        {"clip_sample": False},
        steps=4,
        max_steps=50,
        kind="lcm",
    ),
    "dmd": Sampler("pixart_sigma.pipeline.one_step", "OneStepScheduler", steps=1, max_steps=1, kind="dmd"),
}
OWN_SAMPLERS: Mapping[SamplingKind, str] = {"many-step": DEFAULT_SAMPLER, "lcm": "lcm", "dmd": "dmd"}
"""The sampler that weights of a kind are sampled with, unless another is asked for."""


def kinds_of(
    release: Release | None, scheduler_config: Mapping[str, Any], *, adapted: bool = False
) -> tuple[SamplingKind, ...]:
    """How weights can be sampled, their own way first: as released, else as their scheduler's class says.

    adapted: LoRAs were merged into them; one may make an LCM of many-step weights.
    """
    if release is not None:
        kinds: tuple[SamplingKind, ...] = (release.sampling.kind,)
    else:
        by_class: dict[Any, tuple[SamplingKind, ...]] = {
            "LCMScheduler": ("lcm",),
            "DDPMScheduler": ("many-step", "dmd"),
        }
        kinds = by_class.get(scheduler_config.get("_class_name"), ("many-step",))
    return (*kinds, "lcm") if adapted and "lcm" not in kinds else kinds


def kinds_of_model(folders: PipelineFolders, *, adapted: bool = False) -> tuple[SamplingKind, ...]:
    """As `kinds_of`, for a model that was found; of a released one nothing is read."""
    config = scheduler_config(folders) if folders.release is None else {}
    return kinds_of(folders.release, config, adapted=adapted)


def find_sampler(name: str) -> Sampler:
    """A name from `SAMPLERS` → the sampler. Raises InvalidInput."""
    if name not in SAMPLERS:
        raise InvalidInput(f"unknown sampler {name!r}; one of {', '.join(SAMPLERS)}")
    return SAMPLERS[name]


def check_sampler(sampler: str, kinds: tuple[SamplingKind, ...], model: str) -> None:
    """Raises InvalidInput for a sampler that weights of these kinds can't use."""
    kind = find_sampler(sampler).kind
    if kind in kinds:
        return
    own = OWN_SAMPLERS[kinds[0]]
    if kinds[0] != "many-step":
        raise InvalidInput(
            f"model {model} was distilled for sampler {own!r} and makes no pictures with {sampler!r}; "
            f"use --sampler {own}"
        )
    released = next((release.name for release in releases().values() if release.sampling.kind == kind), own)
    raise InvalidInput(
        f"sampler {sampler!r} is for models distilled for it, and model {model} is none; "
        f"use --sampler {own}, or such a model (--model {released})"
    )


def make_scheduler(sampler: str, config: Mapping[str, Any], profile: Profile = DIFFUSERS) -> Any:
    """A name from `SAMPLERS` and a scheduler_config.json's content → a scheduler, diffusers' or of its interface.

    Raises InvalidInput for an unknown name, WeightsError for a configuration that makes no scheduler.
    """
    chosen = find_sampler(sampler)
    fractional = profile.fractional_timesteps and sampler == DEFAULT_SAMPLER
    if sampler == DEFAULT_SAMPLER:
        from pixart_sigma.diffusion.dpm_solver import DPMSolver

        try:
            return DPMSolver.from_config(config, fractional_timesteps=fractional)
        except (TypeError, ValueError) as error:
            if fractional:
                raise _makes_none("DPMSolver", error) from error
            # What is configured to be another solver is left to diffusers, whose import takes seconds.
    scheduler_class = getattr(import_module(chosen.module), chosen.class_name)
    # What another class saved of itself would only provoke a warning.
    known = inspect.signature(scheduler_class.__init__).parameters
    settings = {key: value for key, value in config.items() if key in known} | dict(chosen.settings)
    try:
        return scheduler_class.from_config(settings)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise _makes_none(chosen.class_name, error) from error


def _makes_none(class_name: str, error: Exception) -> WeightsError:
    return WeightsError(
        f"scheduler_config.json does not make a {class_name} ({error}); fetch or export it again"
    )
