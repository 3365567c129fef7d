"""The transformer's task: from the step to a batch, from weights to held-out figures, pictures and an export.

Legend: B samples, C latent channels, h, w latents, L caption tokens, E channels of the text encoder.

The frozen parts, the autoencoder and a text encoder that does not learn along, belong to the task and not to the model
that is trained; they run in `batch`, unless their results were cached. Knows nothing of optimisers or processes but
for who prepares the data first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pixart_sigma.data.batches import Shape
from pixart_sigma.data.dataset import Dataset, Example
from pixart_sigma.data.images import to_pixels
from pixart_sigma.diffusion.schedule import linear_schedule
from pixart_sigma.pipeline.noise import seeded_noise
from pixart_sigma.pipeline.placement.processes import Processes
from pixart_sigma.pipeline.profiles import DIFFUSERS
from pixart_sigma.training.adapters import check_adapters, inject
from pixart_sigma.training.blend import read_other
from pixart_sigma.training.latent_scaling import (
    choose_scaling,
    estimate_latent_statistics,
    write_latent_scaling,
)
from pixart_sigma.training.null_caption import null_caption_change, put_null_captions
from pixart_sigma.training.precision import autocast
from pixart_sigma.training.recipe import TransformerRecipe
from pixart_sigma.training.recipe.process import microbatch
from pixart_sigma.training.surgery import summarise, write_surgery_log
from pixart_sigma.training.tasks.transformer.data import RunData, open_data
from pixart_sigma.training.tasks.transformer.draws import (
    SampleKeys,
    draw_captions,
    draw_kept,
    draw_noise,
    draw_timesteps,
)
from pixart_sigma.training.tasks.transformer.export import export_adapter, export_pipeline, model_facts
from pixart_sigma.training.tasks.transformer.models import Parts, load_parts
from pixart_sigma.training.tasks.transformer.objective import (
    CaptionTokens,
    TransformerBatch,
    TransformerObjective,
)
from pixart_sigma.training.watching.pictures import save_grid

_GRID_COLUMNS = 4
_GRID_PROMPTS = 8
_STATISTICS_IMAGES = 256


@dataclass(frozen=True)
class Loaded:
    """The samples of a micro-batch on the CPU: examples and their draws."""

    examples: list[Example]
    dropped: Tensor
    noise: Tensor
    timesteps: Tensor
    kept_tokens: Tensor | None


class TransformerTask:
    """Noise or velocity prediction on captioned pictures."""

    methods = ("sample",)

    def __init__(self, recipe: TransformerRecipe, output: Path, processes: Processes) -> None:
        self._recipe = recipe
        self._device = device = processes.device
        self._microbatch = microbatch(recipe.run, processes.world)
        # bf16 halves T5-XXL; one that learns begins with the weights as they are.
        rounded = device.type != "cpu" and not recipe.train_text_encoder
        parts = load_parts(recipe, torch.bfloat16 if rounded else torch.float32)
        if recipe.lora is not None:
            check_adapters(parts.transformer, recipe.lora)
        if recipe.export.blend is not None:  # refused now rather than after the last step
            read_other(recipe.export.blend.model, parts.transformer.state_dict())
        parts.autoencoder.to(device).model.requires_grad_(False)
        parts.text_encoder.to(device).model.requires_grad_(False)
        parts.transformer.to(device)
        self._parts: Parts = parts
        with autocast(recipe.run, device):
            self._data: RunData = open_data(recipe, parts, output, processes)
            self._surgery = self._settle(output, processes)
        self._schedule = linear_schedule().to(device)
        if recipe.lora is not None:
            inject(parts.transformer, recipe.lora, recipe.run.seed)
        text_model = parts.text_encoder.model if recipe.train_text_encoder else None
        if text_model is not None:
            text_model.requires_grad_(True)
        self._objective = TransformerObjective(
            parts.transformer.to(device), text_model, recipe.objective, self._schedule
        )
        self.model: nn.Module = self._objective
        self._null: Tensor | None = None
        self._prompts: CaptionTokens | None = None
        if text_model is None:
            self._null = self._null_states()
            with torch.no_grad():
                self._prompts = self._encoded([*self._texts(), ""])
            if recipe.data.embeddings == "cached":
                parts.text_encoder.to("cpu")  # nothing else is left to encode

    @property
    def data_digest(self) -> str:
        """Of the records and what is cached of them, and of the latents' scale."""
        return f"{self._data.training.digest} {self._parts.autoencoder.scaling_factor!r}"

    @property
    def exports_average(self) -> bool:
        """As the recipe says."""
        return self._recipe.export.weights == "average"

    def notes(self) -> list[str]:
        """What was prepared: records, buckets, what was left out, what surgery did."""
        return [*self._data.describe(), *self._surgery]

    def blocks(self) -> list[nn.Module]:
        """The transformer's blocks."""
        return list(self._parts.transformer.transformer_blocks)

    def load(self, step: int, part: range) -> Loaded:
        """Examples and draws of the samples at `part` of the global batch of `step`."""
        run = self._recipe.run
        batch = self._data.order.batch(step)
        keys = SampleKeys(run.seed, batch.epoch, step, run.batch_size, part)
        records = batch.records[part.start : part.stop].tolist()
        return self._load(self._data.training, records, batch.shape, keys)

    def batch(self, loaded: Loaded, share: float) -> TransformerBatch:
        """Encoded where need be, on the device."""
        examples, device = loaded.examples, self._device
        config = self._parts.transformer.config
        weights = torch.tensor([example.weight * share for example in examples])
        sizes = ratios = None
        if config.micro_conditioning:
            sizes = torch.tensor([example.original_size for example in examples], device=device)
            height, width = examples[0].shape
            ratios = torch.full((len(examples), 1), height / width, device=device)
        return TransformerBatch(
            latents=self._scaled_latents(examples),
            noise=loaded.noise.to(device),
            timesteps=loaded.timesteps.to(device),
            weights=weights.to(device),
            captions=self._captions(examples, loaded.dropped),
            image_size=sizes,
            aspect_ratio=ratios,
            kept_tokens=None if loaded.kept_tokens is None else loaded.kept_tokens.to(device),
        )

    def record_ids(self, step: int, part: range) -> list[str]:
        """The keys of the records in their tables."""
        records = self._data.order.batch(step).records[part.start : part.stop].tolist()
        return [self._data.training.key(record) for record in records]

    def validate(self, step: int, folder: Path | None) -> dict[str, float]:
        """Held-out loss with the same captions, noise and timesteps every time; a grid of prompts and seeds."""
        figures = self._held_out()
        pictures = self._pictures()
        if folder is not None:
            save_grid(pictures, _GRID_COLUMNS, folder / f"step-{step:08d}.png")
        return figures

    def export(
        self, folder: Path, weights: dict[str, Tensor], held_out: dict[str, float]
    ) -> dict[str, float]:
        """A pipeline's folder, or an adapter's."""
        facts = model_facts(
            folder.resolve().parent.name, self._recipe, self._parts, self._data, self._surgery, held_out
        )
        if self._recipe.lora is not None:
            return export_adapter(folder, weights, self._recipe, facts)
        return export_pipeline(folder, weights, self._recipe, self._parts, facts)

    def _settle(self, output: Path, processes: Processes) -> list[str]:
        """What surgery does outside of the transformer (the latents' scale, the null caption) → all of it in words."""
        start = self._recipe.start
        if start is None:
            return []
        changes = list(self._parts.changes)
        autoencoder = self._parts.autoencoder
        if start.vae is not None:
            statistics = estimate_latent_statistics(self._unscaled_latents())
            scaling, change = choose_scaling(
                start.vae_scaling, autoencoder.scaling_factor, autoencoder.shift_factor, statistics
            )
            # The first process's: the others may have measured with another rounding.
            scaling, change = processes.gathered((scaling, change))[0]
            autoencoder.scaling_factor = scaling.scaling_factor
            changes.append(change)
            if processes.first:
                write_latent_scaling(scaling, output / "latent_scaling.json")
        if start.caption_length is not None or start.text_encoder is not None:
            null = self._parts.text_encoder.null_embedding(start.caption_length)
            changes.append(null_caption_change(null))
        if processes.first:
            write_surgery_log(changes, output / "surgery.jsonl")
        return summarise(changes)

    def _unscaled_latents(self) -> Iterator[Tensor]:
        data, autoencoder = self._data.training, self._parts.autoencoder
        for record in range(0, len(data), max(1, len(data) // _STATISTICS_IMAGES)):
            scaled = self._scaled_latents(data.examples([record], [0], data.shapes[record]))
            yield scaled / autoencoder.scaling_factor + autoencoder.shift_factor

    def _load(self, data: Dataset, records: list[int], shape: Shape, keys: SampleKeys) -> Loaded:
        recipe, config = self._recipe, self._parts.transformer.config
        names = [data.caption_sources(record) for record in records]
        chosen, dropped = draw_captions(keys, names, recipe.captions)
        scale = self._parts.autoencoder.latent_scale
        height, width = shape[0] // scale, shape[1] // scale
        grid = (height // config.patch_size, width // config.patch_size)
        compression, kept = config.kv_compression, None
        if compression is not None and compression.operator == "discard" and compression.applies(grid):
            kept = draw_kept(keys, grid, compression.window)
        return Loaded(
            examples=data.examples(records, chosen, shape),
            dropped=dropped,
            noise=draw_noise(keys, (config.in_channels, height, width)),
            timesteps=draw_timesteps(keys, self._schedule.num_timesteps, recipe.objective),
            kept_tokens=kept,
        )

    @torch.no_grad()
    def _scaled_latents(self, examples: list[Example]) -> Tensor:
        autoencoder = self._parts.autoencoder
        if self._recipe.data.latents == "cached":
            cached = [example.latents.float() for example in examples if example.latents is not None]
            unscaled = torch.stack(cached).to(self._device)
            return (unscaled - autoencoder.shift_factor) * autoencoder.scaling_factor
        pixels = np.stack([example.pixels for example in examples if example.pixels is not None])
        return autoencoder.encode(to_pixels(pixels, self._device)).float()

    def _captions(self, examples: list[Example], dropped: Tensor) -> CaptionTokens:
        """The examples' captions, the empty one in the place of the dropped."""
        if self._null is None:
            texts = ["" if drop else example.caption for example, drop in zip(examples, dropped, strict=True)]
            return self._tokens(texts)
        if self._recipe.data.embeddings == "cached":
            cached = [example.embedding for example in examples if example.embedding is not None]
            lengths = torch.tensor([len(embedding) for embedding in cached])
            states = torch.nn.utils.rnn.pad_sequence(cached, batch_first=True).to(self._device)
            mask = (torch.arange(int(lengths.max())) < lengths[:, None]).to(self._device)
        else:
            with torch.no_grad():
                states, mask = self._parts.text_encoder.encode([example.caption for example in examples])
        convention = self._recipe.captions.null_mask
        states, mask = put_null_captions(states, mask, dropped, self._null, convention)
        return CaptionTokens(mask=mask, states=states)

    def _tokens(self, texts: list[str]) -> CaptionTokens:
        """For a text encoder that learns along: ids and mask."""
        text = self._parts.text_encoder
        rows = [torch.tensor(ids) for ids in text.tokenize(texts)]
        lengths = torch.tensor([len(row) for row in rows])
        padding = float(text.tokenizer.pad_token_id)
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=padding)
        mask = torch.arange(ids.shape[1]) < lengths[:, None]
        return CaptionTokens(mask=mask.to(self._device), ids=ids.to(self._device))

    def _texts(self) -> list[str]:
        """The prompts of the validation grid."""
        given = [DIFFUSERS.caption(prompt) for prompt in self._recipe.samples.prompts]
        return given or self._data.first_captions(_GRID_PROMPTS)

    def _encoded(self, texts: list[str]) -> CaptionTokens:
        states, mask = self._parts.text_encoder.encode(texts)
        return CaptionTokens(mask=mask, states=states)

    def _null_states(self) -> Tensor:
        """The empty caption's states: its own rows alone, or as many as a caption may have."""
        text = self._parts.text_encoder
        whole = text.null_embedding()
        own = len(text.tokenizer.encode([""])[0])
        return whole if self._recipe.captions.null_mask == "caption" else whole[:own]

    def _held_out(self) -> dict[str, float]:
        data = self._data.validation
        if data is None:
            return {}
        run = self._recipe.run
        by_shape: dict[Shape, list[int]] = {}
        for record, shape in enumerate(data.shapes):
            by_shape.setdefault(shape, []).append(record)
        sums: dict[str, float] = {}
        done = 0
        for shape, records in by_shape.items():
            for first in range(0, len(records), self._microbatch):
                some = records[first : first + self._microbatch]
                # A step and an epoch that training never has.
                keys = SampleKeys(run.seed, -1, -1, len(data), range(done, done + len(some)))
                loaded = self._load(data, some, shape, keys)
                loaded = replace(loaded, dropped=torch.zeros_like(loaded.dropped))
                for name, value in self._objective(self.batch(loaded, 1 / len(data))).items():
                    sums[name] = sums.get(name, 0.0) + float(value)
                done += len(some)
        return sums

    def _pictures(self) -> Tensor:
        """The validation grid (B, 3, H, W): prompt i with seed i."""
        settings, config = self._recipe.samples, self._parts.transformer.config
        prompts = self._prompts or self._tokens([*self._texts(), ""])
        height, width = self._data.shape
        scale = self._parts.autoencoder.latent_scale
        shape = (config.in_channels, height // scale, width // scale)
        pictures = []
        num = len(prompts.mask) - 1
        for first in range(0, num, _GRID_COLUMNS):
            some = range(first, min(first + _GRID_COLUMNS, num))
            generators = [torch.Generator().manual_seed(index) for index in some]
            options: dict[str, Tensor] = {}
            if config.micro_conditioning:
                options["image_size"] = torch.tensor([[height, width]], device=self._device)
                options["aspect_ratio"] = torch.tensor([[height / width]], device=self._device)
            latents = self._objective.sample(
                seeded_noise(generators, shape).to(self._device),
                prompts.take(list(some)),
                prompts.take([num] * len(some)),
                settings.num_steps,
                settings.guidance_scale,
                generator=generators,
                **options,
            )
            pictures += [self._parts.autoencoder.decode(one[None]).float().cpu() for one in latents]
        return torch.cat(pictures)
