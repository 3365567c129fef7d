"""What is trained: the transformer, and the text encoder if it learns along, from a batch to the terms of the loss.

Legend: B samples of a micro-batch, C latent channels, h, w latents, L caption tokens, E channels of the text encoder.

All that is random or read from files comes with the batch. Knows nothing of steps, records or processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pixart_sigma.diffusion.objective import hybrid_loss
from pixart_sigma.diffusion.sampling import denoise
from pixart_sigma.diffusion.schedule import NoiseSchedule
from pixart_sigma.encoders.t5 import T5Encoder
from pixart_sigma.model import PixArtTransformer
from pixart_sigma.training.pipeline_folder import build_scheduler
from pixart_sigma.training.recipe.transformer import ObjectiveRecipe


@dataclass(frozen=True)
class CaptionTokens:
    """What captions are before the text encoder, or after it.

    states (B, L, E) of a frozen encoder, or ids (B, L) int64 for one that learns along; mask (B, L) bool.
    """

    mask: Tensor
    states: Tensor | None = None
    ids: Tensor | None = None

    def take(self, rows: list[int]) -> CaptionTokens:
        """Some of the captions, repeated ones too."""
        return CaptionTokens(
            mask=self.mask[rows],
            states=None if self.states is None else self.states[rows],
            ids=None if self.ids is None else self.ids[rows],
        )


@dataclass(frozen=True)
class TransformerBatch:
    """A micro-batch on its device.

    latents, noise (B, C, h, w), scaled and of unit variance; timesteps (B,) int64; weights (B,): a sample's part in
    the loss, so that the loss is the sum. image_size (B, 2), aspect_ratio (B, 1) with micro-conditioning alone;
    kept_tokens (B, M) for random discard.
    """

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    weights: Tensor
    captions: CaptionTokens
    image_size: Tensor | None = None
    aspect_ratio: Tensor | None = None
    kept_tokens: Tensor | None = None


class TransformerObjective(nn.Module):
    """Noise or velocity prediction with learned variance (Nichol & Dhariwal 2021, as PixArt trains)."""

    def __init__(
        self,
        transformer: PixArtTransformer,
        text_encoder: T5Encoder | None,
        recipe: ObjectiveRecipe,
        schedule: NoiseSchedule,
    ) -> None:
        """text_encoder: one that learns along, or None."""
        super().__init__()
        self.transformer = transformer
        self.text_encoder = text_encoder
        self._recipe = recipe
        self._schedule = schedule

    def forward(self, batch: TransformerBatch) -> dict[str, Tensor]:
        """TransformerBatch → scalars: loss, its squared error and, where learned, the variance's bound."""
        transformer = self.transformer
        noised = self._schedule.add_noise(batch.latents, batch.noise, batch.timesteps)
        captions = transformer.prepare_captions(self._states(batch.captions), batch.captions.mask)
        timesteps = transformer.prepare_timesteps(batch.timesteps, batch.image_size, batch.aspect_ratio)
        output = transformer(noised, captions, timesteps, batch.kept_tokens)
        with torch.autocast(noised.device.type, enabled=False):
            loss = hybrid_loss(
                output.float(),
                batch.latents,
                batch.noise,
                batch.timesteps,
                self._schedule,
                self._recipe.prediction_type,
                self._recipe.min_snr_gamma,
                self._recipe.x0_below,
            )
            terms = {"loss": loss.total, "mse": loss.mse} | ({} if loss.vb is None else {"vb": loss.vb})
            return {name: (value * batch.weights).sum() for name, value in terms.items()}

    @torch.no_grad()
    def sample(
        self,
        noise: Tensor,
        captions: CaptionTokens,
        negative: CaptionTokens,
        num_steps: int,
        guidance_scale: float,
        **options: Any,
    ) -> Tensor:
        """noise (B, C, h, w) and as many captions, positive and negative → scaled latents (B, C, h, w)."""
        transformer = self.transformer
        return denoise(
            transformer,
            noise,
            transformer.prepare_captions(self._states(captions), captions.mask),
            transformer.prepare_captions(self._states(negative), negative.mask),
            build_scheduler(self._recipe.prediction_type),
            num_steps,
            guidance_scale,
            **options,
        )

    def _states(self, captions: CaptionTokens) -> Tensor:
        if captions.states is not None:
            return captions.states
        assert self.text_encoder is not None
        assert captions.ids is not None
        states: Tensor = self.text_encoder(
            input_ids=captions.ids, attention_mask=captions.mask
        ).last_hidden_state
        return states
