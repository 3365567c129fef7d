"""What comes out of a transformer's run: a pipeline's folder that opens as it is, or an adapter's; each with its card.

Runs on the first process, on the CPU. Knows nothing of how the weights came about.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from pixart_sigma.encoders.t5 import T5Encoder
from pixart_sigma.training.adapters import write_adapter
from pixart_sigma.training.blend import blended, read_other
from pixart_sigma.training.pipeline_folder import write_pipeline
from pixart_sigma.training.recipe import TransformerRecipe
from pixart_sigma.training.tasks.parts import part_weights
from pixart_sigma.training.tasks.transformer.data import RunData
from pixart_sigma.training.tasks.transformer.models import Parts, public_name
from pixart_sigma.training.watching.model_card import ModelFacts, training_rows, write_model_card
from pixart_sigma.weights.folder import CAPTION_LENGTH_KEY, caption_entries
from pixart_sigma.weights.transformer import build

_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def export_pipeline(
    folder: Path, weights: dict[str, Tensor], recipe: TransformerRecipe, parts: Parts, facts: ModelFacts
) -> dict[str, float]:
    """Write a folder in the layout of diffusers' pipeline; returns its size."""
    dtype = _DTYPES[recipe.export.dtype]
    learnt = part_weights(weights, "transformer")
    if (blend := recipe.export.blend) is not None:
        learnt = blended(learnt, read_other(blend.model, learnt), blend.share)
    transformer = build(parts.transformer.config, learnt, "this run").to(dtype)
    learnt_text = part_weights(weights, "text_encoder") if recipe.train_text_encoder else None
    text_model = _on_cpu(parts.text_encoder.model, learnt_text)
    write_pipeline(
        folder,
        transformer,
        text_model.to(dtype),
        parts.text_encoder.tokenizer,
        parts.autoencoder_folder / "vae",
        parts.autoencoder.scaling_factor,
        recipe.objective.prediction_type,
        recipe.export.max_shard_size,
        parts.text_encoder.caption_length,
    )
    write_model_card(folder, facts)
    return _size(folder)


def _on_cpu(model: T5Encoder, weights: dict[str, Tensor] | None) -> T5Encoder:
    """Another text encoder like this one, with these weights or its own; the one that is used is not moved."""
    with torch.device("meta"):
        copied = type(model)(model.config)
    own = weights or {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    copied.load_state_dict(own, assign=True)
    return copied


def export_adapter(
    folder: Path, weights: dict[str, Tensor], recipe: TransformerRecipe, facts: ModelFacts
) -> dict[str, float]:
    """Write a folder in peft's layout; returns its size."""
    assert recipe.lora is not None  # the caller has looked
    assert recipe.start is not None  # or the recipe would be invalid
    base = public_name(recipe.start.model)
    write_adapter(folder, part_weights(weights, "transformer"), recipe.lora, base)
    write_model_card(folder, facts)
    return _size(folder)


def model_facts(
    name: str,
    recipe: TransformerRecipe,
    parts: Parts,
    data: RunData,
    surgery: list[str],
    figures: dict[str, float],
) -> ModelFacts:
    """What the card of a run's export tells; surgery and figures as they were printed."""
    config = parts.transformer.config
    beyond = [
        words
        for words, present in (("KV compression", config.kv_compression), ("QK norm", config.qk_norm))
        if present
    ]
    adapter = None
    if recipe.lora is not None:
        adapter = f"{'DoRA' if recipe.lora.dora else 'LoRA'} of rank {recipe.lora.rank}"
    captions = caption_entries(
        parts.text_encoder.caption_length, micro_conditioning=config.micro_conditioning
    )
    return ModelFacts(
        name=name,
        resolutions=[source.resolution or parts.resolution for source in recipe.data.sources],
        training=training_rows(recipe),
        sources=data.sources,
        figures=figures,
        surgery=surgery,
        base_name=f"`{recipe.start.model.name}`" if recipe.start is not None else None,
        adapter=adapter,
        needs_package=" and ".join(beyond) or None,
        pipeline_class=captions["_class_name"],
        caption_length=captions.get(CAPTION_LENGTH_KEY),
    )


def _size(folder: Path) -> dict[str, float]:
    return {"megabytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6}
