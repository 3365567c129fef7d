"""Noise schedule, training objective and sampling; knows latents and captions, not images or prompts.

Names are resolved on first use: which steps sampling shortens (`shortcuts/plan.py`) is there without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pixart_sigma.diffusion.objective import Loss, hybrid_loss
    from pixart_sigma.diffusion.sampling import denoise
    from pixart_sigma.diffusion.schedule import NoiseSchedule, linear_schedule
    from pixart_sigma.diffusion.token_discard import draw_kept_tokens

__all__ = ["Loss", "NoiseSchedule", "denoise", "draw_kept_tokens", "hybrid_loss", "linear_schedule"]

_MODULES = {
    "Loss": "pixart_sigma.diffusion.objective",
    "NoiseSchedule": "pixart_sigma.diffusion.schedule",
    "denoise": "pixart_sigma.diffusion.sampling",
    "draw_kept_tokens": "pixart_sigma.diffusion.token_discard",
    "hybrid_loss": "pixart_sigma.diffusion.objective",
    "linear_schedule": "pixart_sigma.diffusion.schedule",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'pixart_sigma.diffusion' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
