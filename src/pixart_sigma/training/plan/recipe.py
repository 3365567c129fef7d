"""From a recipe to its plan: which model, at which size, what is computed at every step.

A starting model that is not there yet is taken to be XL/2 with the released encoders, and the plan says so. Reads
config.json files and nothing else.
"""

from __future__ import annotations

from pathlib import Path

from pixart_sigma.encoders.text import SIGMA_CAPTION_LENGTH
from pixart_sigma.model import TransformerConfig
from pixart_sigma.resolution import LATENT_SCALE
from pixart_sigma.training.plan.cost import AutoencoderShape, LoraShape, T5Shape
from pixart_sigma.training.plan.report import PlanInputs, plan, render
from pixart_sigma.training.recipe import TransformerRecipe
from pixart_sigma.training.scratch import scratch_config
from pixart_sigma.training.surgery import new_config_of
from pixart_sigma.weights.config import transformer_config
from pixart_sigma.weights.folder import POCKET, find_pipeline, read_json


def plan_recipe(recipe: TransformerRecipe, gpus: int, gpu_type: str, efficiency: float | None) -> str:
    """The text of `train RECIPE --plan`. Raises InvalidInput for an unknown card or a batch that cannot be dealt."""
    config, text, autoencoder, assumed = _models(recipe)
    side = config.sample_size * LATENT_SCALE
    lora = recipe.lora
    beginning = recipe.start or recipe.scratch
    caption_length = beginning.caption_length if beginning is not None else None
    inputs = PlanInputs(
        height=side,
        width=side,
        batch_size=recipe.run.batch_size,
        steps=recipe.run.steps,
        gpus=gpus,
        gpu=gpu_type,
        accumulate=recipe.run.accumulate,
        strategy=recipe.parallel.strategy,
        shard_size=recipe.parallel.shard_size,
        activation_checkpointing=recipe.parallel.activation_checkpointing,
        optimizer=recipe.optimizer.kind,
        precision=recipe.run.precision,
        lora=LoraShape(lora.rank, lora.targets, lora.dora) if lora else None,
        lora_base=lora.base if lora else "bf16",
        caption_tokens=caption_length or SIGMA_CAPTION_LENGTH,
        autoencoder=autoencoder if recipe.data.latents == "online" else None,
        text_encoder=text if recipe.data.embeddings == "online" else None,
        efficiency=efficiency,
    )
    lines = [render(plan(config, inputs))]
    if assumed:
        lines.append(f"{assumed} is not there yet: XL/2 with T5-XXL and the released autoencoders is assumed")
    return "\n".join(lines)


def _models(recipe: TransformerRecipe) -> tuple[TransformerConfig, T5Shape, AutoencoderShape, Path | None]:
    """The transformer after surgery, the encoders, and the starting model if it had to be guessed."""
    if recipe.scratch is not None:
        text = _text_encoder(recipe.scratch.text_encoder)
        autoencoder = _autoencoder(recipe.scratch.autoencoder)
        config = scratch_config(recipe.scratch, autoencoder.latent_channels, text.width)
        return config, text, autoencoder, None
    start = recipe.start
    assert start is not None  # the recipe has one of the two
    model = find_pipeline(POCKET) if str(start.model) == POCKET else start.model
    path = model / "transformer" / "config.json"
    components = start.components or model
    text = _text_encoder(model if (model / "text_encoder").is_dir() else components)
    autoencoder = _autoencoder(start.vae or (model if (model / "vae").is_dir() else components))
    if path.is_file():
        # Names decide about micro-conditioning only where the file leaves it open; Σ has none.
        return new_config_of(transformer_config(read_json(path), ()), start), text, autoencoder, None
    return new_config_of(TransformerConfig(), start), text, autoencoder, start.model


def _text_encoder(folder: Path) -> T5Shape:
    path = folder / "text_encoder" / "config.json"
    if not path.is_file():
        return T5Shape()
    config = read_json(path)
    return T5Shape(
        width=config["d_model"],
        feed_forward_width=config["d_ff"],
        num_layers=config["num_layers"],
        num_heads=config["num_heads"],
        head_dim=config["d_kv"],
        vocabulary_size=config["vocab_size"],
    )


def _autoencoder(folder: Path) -> AutoencoderShape:
    path = folder / "vae" / "config.json"
    if not path.is_file():
        return AutoencoderShape()
    config = read_json(path)
    return AutoencoderShape(
        channels=tuple(config["block_out_channels"]),
        layers_per_block=config["layers_per_block"],
        latent_channels=config["latent_channels"],
        middle_attention=config.get("mid_block_add_attention", True),
    )
