"""From a recipe to its plan: which model, at which size, what is computed at every step.

A starting model that is not there yet is taken to be XL/2 with the released encoders, and the plan says so. Reads
config.json files and nothing else.
"""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

from pixart_sigma.errors import InvalidInput
from pixart_sigma.model import TransformerConfig
from pixart_sigma.resolution import LATENT_SCALE
from pixart_sigma.training.plan.cost import AutoencoderShape, LoraShape, T5Shape
from pixart_sigma.training.plan.report import PlanInputs, plan, render
from pixart_sigma.training.recipe import TransformerRecipe
from pixart_sigma.training.scratch import scratch_config
from pixart_sigma.training.surgery import new_config_of
from pixart_sigma.weights.catalogue import find_release
from pixart_sigma.weights.checkpoint import read_config
from pixart_sigma.weights.config import released_config
from pixart_sigma.weights.folder import PipelineFolders, caption_length, find_pipeline, read_json


def plan_recipe(recipe: TransformerRecipe, gpus: int, gpu_type: str, efficiency: float | None) -> str:
    """The text of `train RECIPE --plan`. Raises InvalidInput for an unknown card or a batch that cannot be dealt."""
    folders = _folders(recipe)
    config, text, autoencoder, assumed = _models(recipe, folders)
    sides = {source.resolution or config.sample_size * LATENT_SCALE for source in recipe.data.sources}
    side = max(sides)
    lora = recipe.lora
    beginning = recipe.start or recipe.scratch
    asked_length = beginning.caption_length if beginning is not None else None
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
        caption_tokens=asked_length or caption_length(folders),
        autoencoder=autoencoder if recipe.data.latents == "online" else None,
        text_encoder=text if recipe.data.embeddings == "online" else None,
        efficiency=efficiency,
    )
    lines = [render(plan(config, inputs))]
    if len(sides) > 1:
        smaller = ", ".join(f"{each} px" for each in sorted(sides)[:-1])
        lines.append(f"all steps are counted at {side} px; those at {smaller} take less")
    if recipe.train_text_encoder:
        lines.append(
            "the text encoder learns along: its weights, gradients and backward pass are not counted"
        )
    lines += [f"{model} is not there yet: {shape} is assumed" for model, shape in assumed]
    return "\n".join(lines)


def _folders(recipe: TransformerRecipe) -> PipelineFolders:
    """What is there of the starting model; nothing is fetched."""
    start = recipe.start
    if start is None:
        return PipelineFolders("", MappingProxyType({}))
    return _there(start.model, start.components)


def _there(model: Path, components: Path | None = None) -> PipelineFolders:
    try:
        return find_pipeline(model, components, parts=())
    except InvalidInput:
        return PipelineFolders(str(model), MappingProxyType({}), find_release(model))


def _models(
    recipe: TransformerRecipe, folders: PipelineFolders
) -> tuple[TransformerConfig, T5Shape, AutoencoderShape, list[tuple[Path, str]]]:
    """The transformer after surgery, the encoders, and of models that are not there what shape was taken."""
    if recipe.scratch is not None:
        text = _text_encoder(recipe.scratch.text_encoder)
        autoencoder = _autoencoder(recipe.scratch.autoencoder)
        config = scratch_config(recipe.scratch, autoencoder.latent_channels, text.width)
        return config, text, autoencoder, []
    start = recipe.start
    assert start is not None  # the recipe has one of the two
    text_folder = _other(start.text_encoder, "text_encoder", folders)
    autoencoder_folder = _other(start.vae, "vae", folders)
    assumed = []
    if start.text_encoder is not None and text_folder is None:
        assumed.append((start.text_encoder, "T5-XXL"))
    if start.vae is not None and autoencoder_folder is None:
        assumed.append((start.vae, "the released autoencoders' shape"))
    if "transformer" in folders.parts:
        config = read_config(folders.transformer)
    else:
        config = released_config(folders.release) if folders.release is not None else TransformerConfig()
        assumed.append((start.model, "XL/2 with T5-XXL and the released autoencoders"))
    return new_config_of(config, start), _text_encoder(text_folder), _autoencoder(autoencoder_folder), assumed


def _other(model: Path | None, part: str, folders: PipelineFolders) -> Path | None:
    """Where another model's part is, if one is named; else the starting model's. None: nowhere yet."""
    return (folders if model is None else _there(model)).folders.get(part)


def _text_encoder(folder: Path | None) -> T5Shape:
    path = folder / "text_encoder" / "config.json" if folder is not None else None
    if path is None or not path.is_file():
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


def _autoencoder(folder: Path | None) -> AutoencoderShape:
    path = folder / "vae" / "config.json" if folder is not None else None
    if path is None or not path.is_file():
        return AutoencoderShape()
    config = read_json(path)
    return AutoencoderShape(
        channels=tuple(config["block_out_channels"]),
        layers_per_block=config["layers_per_block"],
        latent_channels=config["latent_channels"],
        middle_attention=config.get("mid_block_add_attention", True),
    )
