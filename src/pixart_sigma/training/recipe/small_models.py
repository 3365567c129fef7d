"""The recipes of all models but the transformer: autoencoder, text encoder (in two ways), and the two judges."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from pixart_sigma.training.recipe.data import check_seeds
from pixart_sigma.training.recipe.process import Training, check_replicated
from pixart_sigma.training.recipe.section import Fraction, Section


class PoolRecipe(Section):
    """Pools of drawn scenes under `folder` (relative to the output folder), `num_scenes` of each size."""

    folder: Path = Path("pools")
    num_scenes: PositiveInt
    num_validation: PositiveInt = 256


class AutoencoderModelRecipe(Section):
    """An autoencoder's sizes, under diffusers' names; n entries of block_out_channels make a factor 2^(n-1)."""

    block_out_channels: tuple[PositiveInt, ...] = (32, 64, 96, 128)
    layers_per_block: PositiveInt = 1
    latent_channels: PositiveInt = 4
    norm_num_groups: PositiveInt = 8
    mid_block_add_attention: bool = False

    @model_validator(mode="after")
    def _groups_divide(self) -> Self:
        for channels in self.block_out_channels:
            if channels % self.norm_num_groups:
                raise ValueError(
                    f"norm_num_groups {self.norm_num_groups} does not divide {channels} channels"
                )
        return self


class AutoencoderLossRecipe(Section):
    """Weights of the terms of the autoencoder's loss, each a mean over its elements."""

    absolute: NonNegativeFloat = 1.0
    squared: NonNegativeFloat = 2.0
    gradient: NonNegativeFloat = 0.5
    kl: NonNegativeFloat = 1e-5


class TextEncoderModelRecipe(Section):
    """The configuration of a T5 encoder with gated GELU, as in T5 v1.1."""

    vocabulary_size: PositiveInt = 1000
    width: PositiveInt = 192
    num_layers: PositiveInt = 3
    num_heads: PositiveInt = 4
    feed_forward_width: PositiveInt = 384


JudgeLevels = tuple[PositiveInt, PositiveInt, PositiveInt]


class JudgeModelRecipe(Section):
    """The channels and residual blocks of a judge's backbone at 32², 16² and 8²."""

    channels: JudgeLevels
    blocks: JudgeLevels = (1, 1, 1)

    @model_validator(mode="after")
    def _groups_divide(self) -> Self:
        for channels in self.channels:
            if channels % 8:
                raise ValueError(f"channels {channels} are not a multiple of the 8 groups of the norm")
        return self


class CheckerModelRecipe(JudgeModelRecipe):
    """`num_heads`: of the attention from kinds to the map."""

    channels: JudgeLevels = (64, 128, 160)
    blocks: JudgeLevels = (1, 2, 1)
    num_heads: PositiveInt = 4

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.channels[-1] % self.num_heads:
            raise ValueError(f"num_heads {self.num_heads} does not divide {self.channels[-1]} channels")
        return self


class ImageTextModelRecipe(JudgeModelRecipe):
    """`num_pieces` of the tokenizer at most; `text_…`: the text transformer."""

    channels: JudgeLevels = (48, 96, 160)
    num_pieces: PositiveInt = 800
    text_width: PositiveInt = 128
    text_layers: PositiveInt = 2
    text_heads: PositiveInt = 4

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.text_width % self.text_heads:
            raise ValueError(f"text_heads {self.text_heads} does not divide text_width {self.text_width}")
        return self


class _SmallTraining(Training):
    """Of a model that every process holds whole."""

    @model_validator(mode="after")
    def _not_sharded(self) -> Self:
        check_replicated(self.parallel)
        return self


class AutoencoderRecipe(_SmallTraining):
    """Square crops of `crop_size` px from scenes drawn at each of `image_sizes`."""

    kind: Literal["autoencoder"]
    pool: PoolRecipe
    model: AutoencoderModelRecipe = AutoencoderModelRecipe()
    loss: AutoencoderLossRecipe = AutoencoderLossRecipe()
    image_sizes: tuple[PositiveInt, ...] = Field((128, 256), min_length=1)
    crop_size: PositiveInt = 64

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        factor = 2 ** (len(self.model.block_out_channels) - 1)
        if odd := [size for size in self.image_sizes if size % factor]:
            raise ValueError(f"image_sizes must be multiples of {factor}, not {odd[0]}")
        if self.crop_size % factor or self.crop_size > min(self.image_sizes):
            raise ValueError(
                f"crop_size {self.crop_size} must be a multiple of {factor} and at most {min(self.image_sizes)}"
            )
        return self


class TextEncoderRecipe(_SmallTraining):
    """Captions of seeds 0 … num_scenes - 1; `masked` is the share of pieces to be filled in."""

    kind: Literal["text-encoder"]
    model: TextEncoderModelRecipe = TextEncoderModelRecipe()
    num_scenes: PositiveInt = 50_000
    num_validation: PositiveInt = 512
    masked: Fraction = 0.25


class CaptionReaderRecipe(_SmallTraining):
    """The text encoder of the model `start` goes on learning: from its embedding of a caption the scene shall be told.

    Captions of seeds first_seed … first_seed + num_scenes - 1; a batch is of short ones with probability `short`, else
    of dense ones. `things` is the weight of things' colours and places, beside 1 of all else. `keep` is that of the
    mean squared distance from the embeddings that the starting model gives, which its transformer knows.
    """

    kind: Literal["caption-reader"]
    start: Path
    num_scenes: PositiveInt = 50_000
    first_seed: NonNegativeInt = 0
    num_validation: PositiveInt = 512
    short: Fraction = 0.85
    things: PositiveFloat = 3.0
    keep: NonNegativeFloat = 0.0
    num_heads: PositiveInt = 4

    @model_validator(mode="after")
    def _seeds_are_for_training(self) -> Self:
        check_seeds(range(self.first_seed, self.first_seed + self.num_scenes), "first_seed")
        return self


class CheckerRecipe(_SmallTraining):
    """The judge that reads pictures. Scenes of its own seeds, with all pairs, drawn at each of `image_sizes`."""

    kind: Literal["checker"]
    pool: PoolRecipe
    model: CheckerModelRecipe = CheckerModelRecipe()
    image_sizes: tuple[PositiveInt, ...] = Field((128, 256), min_length=1)


class ImageTextRecipe(_SmallTraining):
    """The judge of pictures with texts, which contrasts the pictures of a part of a batch. Scenes as a checker's."""

    kind: Literal["image-text"]
    pool: PoolRecipe
    model: ImageTextModelRecipe = ImageTextModelRecipe()
    image_sizes: tuple[PositiveInt, ...] = Field((128, 256), min_length=1)
