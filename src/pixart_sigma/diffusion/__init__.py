"""Noise schedule, training objective and sampling; knows latents and captions, not images or prompts."""

from pixart_sigma.diffusion.objective import Loss, hybrid_loss
from pixart_sigma.diffusion.sampling import denoise
from pixart_sigma.diffusion.schedule import NoiseSchedule, linear_schedule
from pixart_sigma.diffusion.token_discard import draw_kept_tokens

__all__ = ["Loss", "NoiseSchedule", "denoise", "draw_kept_tokens", "hybrid_loss", "linear_schedule"]
