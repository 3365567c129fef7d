"""Where a run's parts come from: fresh, or from a starting model that is operated on (weak to strong).

Knows nothing of data. The statistics of another autoencoder's latents, which need data, are settled by the task.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch

from pixart_sigma.encoders.autoencoder import Autoencoder
from pixart_sigma.encoders.text import TextEncoder
from pixart_sigma.errors import RecipeError, WeightsError
from pixart_sigma.model import PixArtTransformer
from pixart_sigma.resolution import LATENT_SCALE
from pixart_sigma.training.recipe import TransformerRecipe
from pixart_sigma.training.recipe.data import check_buckets
from pixart_sigma.training.recipe.start import ScratchRecipe, StartRecipe
from pixart_sigma.training.scratch import scratch_config
from pixart_sigma.training.surgery import Change, operate
from pixart_sigma.weights.folder import (
    COMPONENTS,
    TEXT_PARTS,
    PipelineFolders,
    caption_length,
    find_pipeline,
    read_json,
)
from pixart_sigma.weights.transformer import build, load_transformer


@dataclass(frozen=True)
class Parts:
    """A run's models on the CPU in fp32, and where the frozen ones were read.

    changes: what surgery did to the starting model; none from scratch.
    """

    transformer: PixArtTransformer
    text_encoder: TextEncoder
    autoencoder: Autoencoder
    text_encoder_folder: Path
    autoencoder_folder: Path
    changes: list[Change]

    @property
    def resolution(self) -> int:
        """The side in pixels of the square that training is based on."""
        return self.transformer.config.sample_size * self.autoencoder.latent_scale


def load_parts(recipe: TransformerRecipe, text_dtype: torch.dtype = torch.float32) -> Parts:
    """Load or make all of a run's models, and operate on the transformer.

    Raises WeightsError for folders that lack a part or do not fit one another, RecipeError for a recipe that the
    starting model refutes.
    """
    if recipe.start is not None:
        parts = _from_start(recipe, recipe.start, text_dtype)
    else:
        assert recipe.scratch is not None  # the recipe has one of the two
        parts = _from_scratch(recipe, recipe.scratch, text_dtype)
    _check(recipe, parts)
    return parts


def _from_start(recipe: TransformerRecipe, start: StartRecipe, text_dtype: torch.dtype) -> Parts:
    folders = find_pipeline(start.model, start.components, parts=wanted_parts(start))
    autoencoder_folder = _folder(start.vae, ["vae"], folders)
    text_folder = _folder(start.text_encoder, TEXT_PARTS, folders)
    _check_prediction(recipe, start, folders)
    num_tokens = start.caption_length or caption_length(folders)
    autoencoder = Autoencoder.from_pretrained(autoencoder_folder)
    started = load_transformer(folders.transformer)
    config, weights, changes = operate(
        started.config,
        started.state_dict(),
        start,
        recipe.run.seed,
        latent_channels=int(autoencoder.model.config.latent_channels),
    )
    if start.text_encoder is not None:
        changes = [
            *changes,
            Change("text_encoder", "configured", f"that of {public_name(start.text_encoder)}"),
        ]
    text = TextEncoder.from_pretrained(text_folder, text_dtype)
    return Parts(
        transformer=build(config, weights, f"{start.model} after its surgery"),
        text_encoder=TextEncoder(text.tokenizer, text.model, num_tokens),
        autoencoder=autoencoder,
        text_encoder_folder=text_folder,
        autoencoder_folder=autoencoder_folder,
        changes=changes,
    )


def _from_scratch(recipe: TransformerRecipe, scratch: ScratchRecipe, text_dtype: torch.dtype) -> Parts:
    autoencoder = Autoencoder.from_pretrained(scratch.autoencoder)
    text = TextEncoder.from_pretrained(scratch.text_encoder, text_dtype)
    channels = int(autoencoder.model.config.latent_channels)
    config = scratch_config(scratch, channels, int(text.model.config.d_model))
    fresh = scratch.kv_compression
    transformer = PixArtTransformer(config)
    transformer.initialise_weights(
        fresh.init if fresh else "average", torch.Generator().manual_seed(recipe.run.seed)
    )
    return Parts(
        transformer=transformer,
        text_encoder=TextEncoder(text.tokenizer, text.model, scratch.caption_length),
        autoencoder=autoencoder,
        text_encoder_folder=scratch.text_encoder,
        autoencoder_folder=scratch.autoencoder,
        changes=[],
    )


def public_name(model: Path) -> str:
    """For logs and cards: a folder's place is this machine's business, a relative one or a Hub's id may help."""
    return model.name if model.is_absolute() else model.as_posix()


def wanted_parts(start: StartRecipe) -> list[str]:
    """What the starting model must have: all but what another takes the place of."""
    replaced = ("vae",) * (start.vae is not None) + TEXT_PARTS * (start.text_encoder is not None)
    return [part for part in COMPONENTS if part not in replaced]


def _folder(other: Path | None, parts: Collection[str], folders: PipelineFolders) -> Path:
    """Where parts that belong together are: in another model, if one is named."""
    return (folders if other is None else find_pipeline(other, parts=parts))[next(iter(parts))]


def _check_prediction(recipe: TransformerRecipe, start: StartRecipe, folders: PipelineFolders) -> None:
    config = read_json(folders["scheduler"] / "scheduler" / "scheduler_config.json")
    predicts = config.get("prediction_type", "epsilon")
    wanted = recipe.objective.prediction_type
    if predicts != wanted:
        raise RecipeError(
            f"{start.model} predicts {predicts}, objective.prediction_type is {wanted}; make them equal "
            f"(--set objective.prediction_type={predicts})"
        )


def _check(recipe: TransformerRecipe, parts: Parts) -> None:
    config = parts.transformer.config
    expectations = (
        ("the text encoder's width", parts.text_encoder.model.config.d_model, config.caption_channels),
        (
            "the autoencoder's latent channels",
            parts.autoencoder.model.config.latent_channels,
            config.in_channels,
        ),
        ("the autoencoder's pixels per latent", parts.autoencoder.latent_scale, LATENT_SCALE),
    )
    for name, found, wanted in expectations:
        if found != wanted:
            raise WeightsError(
                f"{name} is {found}, the transformer takes {wanted}; combine parts that belong together"
            )
    try:
        check_buckets(parts.resolution, recipe.data.buckets)
    except ValueError as error:
        raise RecipeError(str(error)) from error
