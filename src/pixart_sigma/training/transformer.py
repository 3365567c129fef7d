"""The transformer task: noise prediction on cached latents, with the text encoder learning along or frozen.

Legend: B batch, C latent channels, h, w latents, L caption tokens.

Captions are encoded and prepared eagerly, since their lengths vary; the transformer's forward alone is compiled.
All draws of a step are keyed by it. Knows nothing of pixels but for the pictures it validates with.
"""

from __future__ import annotations

import contextlib
import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from pixart_sigma.data.drawn import FIRST_VALIDATION_SEED, SceneRecord
from pixart_sigma.data.latents import LatentPool, autoencoder_digest, latent_pool
from pixart_sigma.diffusion.objective import hybrid_loss
from pixart_sigma.diffusion.sampling import denoise
from pixart_sigma.diffusion.schedule import linear_schedule
from pixart_sigma.encoders.autoencoder import Autoencoder
from pixart_sigma.encoders.text import TextEncoder
from pixart_sigma.errors import RecipeError
from pixart_sigma.model import Captions, PixArtTransformer, TransformerConfig
from pixart_sigma.pipeline.text_to_image import seeded_noise
from pixart_sigma.training.captions import CaptionTable
from pixart_sigma.training.draws import batch_indices, keyed_generator
from pixart_sigma.training.pictures import save_grid
from pixart_sigma.training.pipeline_folder import build_scheduler, write_pipeline
from pixart_sigma.training.progress import report_stage
from pixart_sigma.training.recipe import ObjectiveRecipe, TransformerRecipe
from pixart_sigma.weights.transformer import build, load_transformer

_GRID_COLUMNS = 8
_GRID_PROMPTS = 16
_VALIDATION_BATCH = 64


class TransformerTask:
    """Epsilon or velocity prediction with learned variance, on short and dense captions and the empty one."""

    def __init__(self, recipe: TransformerRecipe, output: Path, device: torch.device) -> None:
        self._recipe = recipe
        self._device = device
        text = TextEncoder.from_pretrained(recipe.text_encoder)
        self._tokenizer = text.tokenizer
        text.model.requires_grad_(recipe.train_text_encoder)
        self._autoencoder = Autoencoder.from_pretrained(recipe.autoencoder).to(device)
        self._transformer = _start(recipe, int(text.model.config.d_model), self._autoencoder).to(device)
        self._text_model: Any = text.model.to(device)
        self.model: nn.Module = nn.ModuleDict(
            {"transformer": self._transformer, "text_encoder": self._text_model}
        )
        self._forward: Any = self._transformer
        self._schedule = linear_schedule().to(device)
        digest = autoencoder_digest(recipe.autoencoder)
        self._latents, self._captions = self._pool(output, digest, "training", 0, recipe.pool.num_scenes)
        self._held_latents, self._held_captions = self._pool(
            output, digest, "validation", FIRST_VALIDATION_SEED, recipe.pool.num_validation
        )

    def compile(self) -> None:
        """The transformer's forward; a few caption lengths make a few graphs."""
        self._forward = torch.compile(self._transformer, dynamic=False)

    def loss(self, step: int) -> dict[str, Tensor]:
        """The hybrid loss of the batch of `step`, and its parts."""
        recipe = self._recipe
        seed, batch_size = recipe.run.seed, recipe.run.batch_size
        indices = batch_indices(seed, step, batch_size, len(self._latents))
        rows = draw_captions(
            indices,
            len(self._latents),
            recipe.captions.short_fraction,
            recipe.captions.dropout,
            keyed_generator(seed, step, "captions"),
        )
        generator = keyed_generator(seed, step, "noise")
        return self._hybrid(self._forward, self._latents, indices, self._captions, rows, generator)

    def validate(self, step: int, folder: Path) -> dict[str, float]:
        """Held-out loss with the same noise every time (dense captions), and a grid of fixed prompts and seeds."""
        generator = keyed_generator(self._recipe.run.seed, 0, "validation noise")
        num = len(self._held_latents)
        sums: dict[str, float] = {}
        for indices in torch.arange(num).split(_VALIDATION_BATCH):
            parts = self._hybrid(
                self._transformer, self._held_latents, indices, self._held_captions, num + indices, generator
            )
            for name, value in parts.items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(indices) / num
        save_grid(self.samples(), _GRID_COLUMNS, folder / f"step-{step:08d}.png")
        return sums

    def samples(self) -> Tensor:
        """The validation grid's pictures (B, 3, H, W): prompt i with seed i."""
        settings = self._recipe.samples
        prompts = list(settings.prompts) or self._held_prompts
        config = self._transformer.config
        shape = (config.in_channels, *self._held_latents.shape[2:])
        noise = seeded_noise([torch.Generator().manual_seed(seed) for seed in range(len(prompts))], shape)
        table = CaptionTable(self._tokenizer, [*prompts, ""])
        positive = self._prepare(table, torch.arange(len(prompts)))
        negative = self._prepare(table, torch.full((len(prompts),), len(prompts)))
        latents = denoise(
            self._transformer,
            noise.to(self._device),
            positive,
            negative,
            build_scheduler(self._recipe.objective.prediction_type),
            settings.num_steps,
            settings.guidance_scale,
        )
        pictures = [self._autoencoder.decode(part) for part in latents.split(_GRID_COLUMNS)]
        return torch.cat(pictures)

    def export(self, folder: Path) -> dict[str, float]:
        """Write a whole pipeline folder in bf16."""
        write_pipeline(
            folder,
            copy.deepcopy(self._transformer).to(torch.bfloat16),
            copy.deepcopy(self._text_model).to(torch.bfloat16),
            self._tokenizer,
            self._recipe.autoencoder / "vae",
            self._recipe.objective.prediction_type,
            self._recipe.max_shard_size,
        )
        return {"megabytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6}

    def _hybrid(
        self,
        forward: Any,
        latents: Tensor,
        indices: Tensor,
        table: CaptionTable,
        rows: Tensor,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        clean = latents[indices.to(latents.device)].float()
        noise = torch.randn(clean.shape, generator=generator).to(self._device)
        objective = self._recipe.objective
        timesteps = draw_timesteps(len(indices), self._schedule.num_timesteps, objective, generator).to(
            self._device
        )
        noised = self._schedule.add_noise(clean, noise, timesteps)
        captions = self._prepare(table, rows)
        with _attention_kernel(self._device):
            output = forward(noised, captions, self._transformer.prepare_timesteps(timesteps))
        with torch.autocast(self._device.type, enabled=False):
            loss = hybrid_loss(
                output.float(),
                clean,
                noise,
                timesteps,
                self._schedule,
                objective.prediction_type,
                objective.min_snr_gamma,
            )
        parts = {"loss": loss.total.mean(), "mse": loss.mse.mean()}
        return parts if loss.vb is None else parts | {"vb": loss.vb.mean()}

    def _prepare(self, table: CaptionTable, rows: Tensor) -> Captions:
        ids, mask = table.take(rows)
        ids, mask = ids.to(self._device), mask.to(self._device)
        with torch.set_grad_enabled(self._recipe.train_text_encoder and torch.is_grad_enabled()):
            states = self._text_model(input_ids=ids, attention_mask=mask).last_hidden_state
        return self._transformer.prepare_captions(states, mask)

    def _pool(
        self, output: Path, digest: str, name: str, first_seed: int, num_scenes: int
    ) -> tuple[Tensor, CaptionTable]:
        size = self._recipe.image_size
        pool: LatentPool = latent_pool(
            output / self._recipe.pool.folder / f"latents-{name}-{size}",
            self._autoencoder,
            digest,
            first_seed,
            num_scenes,
            size,
            size,
            report_stage(f"latents {name}-{size}"),
        )
        if first_seed == FIRST_VALIDATION_SEED:
            self._held_prompts = [record.short for record in pool.records[:_GRID_PROMPTS]]
        unscaled = torch.from_numpy(np.array(pool.latents)).to(self._device).float()
        scaled = (unscaled - self._autoencoder.shift_factor) * self._autoencoder.scaling_factor
        return scaled, CaptionTable(self._tokenizer, caption_rows(pool.records))


def caption_rows(records: list[SceneRecord]) -> list[str]:
    """2 N + 1 captions: N short, N dense, and the empty one that dropout puts in a caption's place."""
    return [record.short for record in records] + [record.dense for record in records] + [""]


def draw_captions(
    indices: Tensor, num_scenes: int, short_fraction: float, dropout: float, generator: torch.Generator
) -> Tensor:
    """Scenes (B,) → rows (B,) of `caption_rows`.

    One draw of the kind for the whole batch, so that short captions are not padded to the length of dense ones.
    """
    kind = float(torch.rand((), generator=generator))
    dropped = torch.rand(len(indices), generator=generator)
    rows = indices if kind < short_fraction else num_scenes + indices
    return torch.where(dropped < dropout, 2 * num_scenes, rows)


def draw_timesteps(
    batch_size: int, num_timesteps: int, objective: ObjectiveRecipe, generator: torch.Generator
) -> Tensor:
    """Timesteps (B,) int64. Stratified: one from each B-th of the distribution, which makes the loss less noisy."""
    uniform = (torch.arange(batch_size) + torch.rand(batch_size, generator=generator)) / batch_size
    if objective.timesteps == "logit-normal":
        normal = torch.special.ndtri(uniform.clamp(1e-6, 1 - 1e-6))
        uniform = torch.sigmoid(objective.timestep_mean + objective.timestep_std * normal)
    return (uniform * num_timesteps).long().clamp(max=num_timesteps - 1)


def _attention_kernel(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """On a CPU the fused kernel's backward is the slower one at a few hundred tokens (docs/log.md)."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else contextlib.nullcontext()


def _start(recipe: TransformerRecipe, caption_channels: int, autoencoder: Autoencoder) -> PixArtTransformer:
    config = TransformerConfig(
        **recipe.model.model_dump(),
        in_channels=int(autoencoder.model.config.latent_channels),
        caption_channels=caption_channels,
    )
    side = config.sample_size * autoencoder.latent_scale
    if recipe.image_size != side:
        raise RecipeError(
            f"image_size {recipe.image_size} is not model.sample_size {config.sample_size} times the autoencoder's "
            f"{autoencoder.latent_scale} (--set image_size={side})"
        )
    if recipe.start is None:
        model = PixArtTransformer(config)
        model.initialise_weights(generator=torch.Generator().manual_seed(recipe.run.seed))
        return model
    started = load_transformer(recipe.start / "transformer")
    # A larger picture keeps the weights and stretches the positions, which are not weights.
    stretched = replace(
        started.config, sample_size=config.sample_size, interpolation_scale=config.interpolation_scale
    )
    if stretched != config:
        raise RecipeError(
            f"the transformer in {recipe.start} is {stretched}, the recipe's is {config}; make them equal"
        )
    return build(config, started.state_dict(), str(recipe.start))
