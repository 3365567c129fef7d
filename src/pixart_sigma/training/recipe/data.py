"""The tables on what a transformer is shown: pictures, shapes, captions."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from pixart_sigma.errors import InvalidInput
from pixart_sigma.resolution import aspect_buckets
from pixart_sigma.training.recipe.section import Fraction, Section, check_resolution

NUM_TRAINING_SEEDS = 10**9
"""Scenes of the drawn world that may be trained on; those behind them are for validation, judges and evaluation."""


class DrawnRecipe(Section):
    """Scenes of the drawn world, seeds first_seed … first_seed + num_scenes - 1, drawn at the source's resolution."""

    num_scenes: PositiveInt
    first_seed: NonNegativeInt = 0

    @property
    def seeds(self) -> range:
        """Those of the scenes."""
        return range(self.first_seed, self.first_seed + self.num_scenes)


def check_seeds(seeds: range, key: str) -> None:
    """Raises ValueError for scenes that may not be trained on; `key` sets the first."""
    if seeds.stop > NUM_TRAINING_SEEDS:
        raise ValueError(
            f"scenes from seed {NUM_TRAINING_SEEDS} on are for validation and evaluation, but {seeds.stop - 1} is "
            f"trained on; choose a lower {key}"
        )


class SourceRecipe(Section):
    """Pictures with captions; exactly one of the first five says where they are.

    `folder`: pictures with side files (.txt, .json, metadata.jsonl, metadata.csv), or one `caption` for all.
    `pixart`: the official layout, InternImgs and InternData. `parquet`: a Hugging Face dataset. `table`: a Lance
    table. `repeats`: how often an epoch sees each picture. `resolution`: the side in pixels that its buckets are based
    on; None: the run's. Sources of several resolutions make one model that serves all of them.
    """

    folder: Path | None = None
    pixart: Path | None = None
    parquet: Path | None = None
    table: Path | None = None
    drawn: DrawnRecipe | None = None
    caption: str | None = None
    repeats: PositiveInt = 1
    resolution: PositiveInt | None = None

    @property
    def kind(self) -> str:
        """The one of the five that was given."""
        return next(name for name in _PLACES if getattr(self, name) is not None)

    @property
    def place(self) -> Path | None:
        """Where it is on disk; the drawn world is nowhere."""
        return self.folder or self.pixart or self.parquet or self.table

    def overlaps(self, other: SourceRecipe) -> bool:
        """Whether both have pictures in common, as far as their names tell."""
        if self.drawn is not None and other.drawn is not None:
            return (
                self.drawn.seeds.start < other.drawn.seeds.stop
                and other.drawn.seeds.start < self.drawn.seeds.stop
            )
        return self.place is not None and self.place == other.place

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        given = [name for name in _PLACES if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a source is exactly one of {', '.join(_PLACES)}; given: {', '.join(given) or 'none'}"
            )
        if self.folder is None:
            self.refuse_ignored({"caption"}, f"by a source that is a {given[0]}")
        check_resolution(self.resolution)
        return self


_PLACES = ("folder", "pixart", "parquet", "table", "drawn")


class ClassImagesRecipe(Section):
    """DreamBooth's prior: `num` pictures of `prompt`, made by the model that training starts from.

    Each epoch sees each of them once; their loss has `weight`.
    """

    prompt: str
    num: PositiveInt = 100
    weight: PositiveFloat = 1.0
    num_steps: PositiveInt = 20
    guidance_scale: PositiveFloat = 4.5


class DataRecipe(Section):
    """Which pictures, in which shapes, and what is computed before training begins.

    `buckets`: `aspect`, all of the released buckets of the resolution, or `square`. `latents`, `embeddings`: `cached`
    as columns of the table, or computed `online` at every step. Tables made on the way go to `folder`, relative to
    the output folder. The last, partial batch of a bucket is dropped, or filled up from the bucket's start (`wrap`).
    """

    sources: tuple[SourceRecipe, ...] = Field(min_length=1)
    validation: SourceRecipe | None = None
    class_images: ClassImagesRecipe | None = None
    folder: Path = Path("tables")
    buckets: Literal["aspect", "square"] = "aspect"
    max_aspect: PositiveFloat = 4.5
    latents: Literal["cached", "online"] = "cached"
    embeddings: Literal["cached", "online"] = "cached"
    partial_batches: Literal["drop", "wrap"] = "drop"
    max_corrupt: Fraction = 0.01
    workers: PositiveInt = 4

    @model_validator(mode="after")
    def _keys_fit(self) -> Self:
        if self.latents == "cached":
            self.refuse_ignored(
                {"workers"}, "with cached latents; it is for pictures that are decoded at every step"
            )
        for source in self.sources:
            if source.drawn is not None:
                check_seeds(source.drawn.seeds, "data.sources.*.drawn.first_seed")
        if self.validation is not None:
            self.validation.refuse_ignored({"repeats"}, "by validation")
            if any(self.validation.overlaps(source) for source in self.sources):
                raise ValueError("data.validation has pictures that are trained on; name others")
        return self


def check_buckets(resolution: int, buckets: str) -> None:
    """Raises ValueError if a resolution has no aspect-ratio buckets although they are asked for."""
    if buckets == "aspect":
        try:
            aspect_buckets(resolution)
        except InvalidInput as error:
            rule = str(error).partition(";")[0]
            raise ValueError(f'{rule}; choose one of those, or data.buckets = "square"') from error


class CaptionRecipe(Section):
    """`mix`: a weight for each source of captions, such as {dense = 0.6, short = 0.4}; empty: all alike.

    A record without a caption of some source leaves that one out. `dropout` puts the empty caption in a caption's
    place, read under its `own` mask (as diffusers) or under that of the `caption` it replaces (the official code).
    """

    mix: dict[str, PositiveFloat] = {}
    dropout: Fraction = 0.1
    null_mask: Literal["own", "caption"] = "own"

    @model_validator(mode="after")
    def _null_needs_dropout(self) -> Self:
        if not self.dropout:
            self.refuse_ignored({"null_mask"}, "without dropout")
        return self
