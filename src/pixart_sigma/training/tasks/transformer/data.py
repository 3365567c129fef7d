"""From a recipe's sources to its training set: tables are opened or made, features cached, records put in buckets.

Knows nothing of steps or draws. All processes call `open_data`; the first makes what is missing, but for features,
which they compute together.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pixart_sigma.data.batches import BatchOrder, Shape
from pixart_sigma.data.dataset import BucketOf, Dataset, Source
from pixart_sigma.data.features import add_embeddings, add_latents, autoencoder_digest, text_encoder_digest
from pixart_sigma.data.ingest import ingest
from pixart_sigma.data.sources import Origin, drawn_world, image_folder, official_layout, parquet_files
from pixart_sigma.data.table import Share, Table
from pixart_sigma.pipeline.placement.processes import Processes
from pixart_sigma.resolution import nearest_bucket
from pixart_sigma.training.recipe import TransformerRecipe
from pixart_sigma.training.recipe.data import ClassImagesRecipe, SourceRecipe
from pixart_sigma.training.tasks.transformer.class_images import class_images_folder, make_class_images
from pixart_sigma.training.tasks.transformer.models import Parts
from pixart_sigma.training.watching.progress import report_stage


@dataclass(frozen=True)
class RunData:
    """The training set in its order, and the held-out one.

    shape: the bucket of a square picture. sources: names, as a model card may tell them, and numbers of pictures.
    """

    training: Dataset
    order: BatchOrder
    validation: Dataset | None
    shape: Shape
    sources: dict[str, int]

    def first_captions(self, num: int) -> list[str]:
        """The captions of the first records, held-out ones if there are any, for the validation grid."""
        data = self.validation or self.training
        records = range(min(num, len(data)))
        return [data.examples([record], [0], data.shapes[record])[0].caption for record in records]

    def describe(self) -> list[str]:
        """Lines for the log: how many records, batches, and what was left out."""
        lines = [self.order.summary()]
        lines += [
            f"{count:,} records are left out: {reason}" for reason, count in self.training.left_out.items()
        ]
        return lines


def open_data(recipe: TransformerRecipe, parts: Parts, output: Path, processes: Processes) -> RunData:
    """Open a run's records, made of its sources where need be.

    Raises InvalidInput for sources that are missing, empty, corrupt beyond the limit, or without the captions that
    the recipe draws.
    """
    tables = _Tables(recipe, parts, output, processes)
    sources = [
        tables.source(source, f"{number:02d}-{source.kind}", source.repeats)
        for number, source in enumerate(recipe.data.sources)
    ]
    if recipe.data.class_images is not None:
        sources.append(tables.class_images(recipe.data.class_images))
    training = tables.dataset(sources)
    order = BatchOrder(
        training.shapes,
        training.repeats,
        recipe.run.batch_size,
        recipe.data.partial_batches,
        recipe.run.seed,
    )
    validation = None
    if recipe.data.validation is not None:
        validation = tables.dataset([tables.source(recipe.data.validation, "validation", 1)])
    names = [_name(source) for source in recipe.data.sources]
    names += [f"class images: {recipe.data.class_images.prompt}"] if recipe.data.class_images else []
    counts: dict[str, int] = {}
    for name, source in zip(names, sources, strict=True):
        counts[name] = counts.get(name, 0) + source.table.num_rows
    return RunData(training, order, validation, tables.bucket_of(parts.resolution)(1, 1), counts)


def _name(source: SourceRecipe) -> str:
    size = f" at {source.resolution} px" if source.resolution is not None else ""
    if source.drawn is not None:
        return f"drawn world, seeds {source.drawn.seeds[0]} to {source.drawn.seeds[-1]}{size}"
    return f"{source.kind} {source.place.name}{size}" if source.place is not None else source.kind


class _Tables:
    """Makes sources of a recipe's; the first process makes the tables, all of them the features."""

    def __init__(self, recipe: TransformerRecipe, parts: Parts, output: Path, processes: Processes) -> None:
        self._recipe = recipe
        self._parts = parts
        self._output = output
        self._folder = output / recipe.data.folder
        self._processes = processes
        self._share = Share(processes.rank, processes.world, processes.gathered)
        data = recipe.data
        self._autoencoder = autoencoder_digest(parts.autoencoder_folder) if data.latents == "cached" else None
        self._text_encoder = (
            text_encoder_digest(parts.text_encoder_folder) if data.embeddings == "cached" else None
        )

    def bucket_of(self, resolution: int) -> BucketOf:
        """Of pictures at a resolution: (height, width) → the bucket, in pixels."""
        if self._recipe.data.buckets == "square":
            return lambda height, width: (resolution, resolution)
        return lambda height, width: nearest_bucket(height / width, resolution)

    def _resolution(self, source: SourceRecipe) -> int:
        return source.resolution or self._parts.resolution

    def source(self, source: SourceRecipe, name: str, repeats: int, weight: float = 1.0) -> Source:
        """A recipe's source: its table, with the features that the recipe wants cached."""
        with self._processes.first_goes_first():
            table = (
                self._table(source, name) if self._processes.first else Table.open(self._path(source, name))
            )
        latents = embeddings = None
        resolution = self._resolution(source)
        bucket_of = self.bucket_of(resolution)
        if self._autoencoder is not None:
            latents = add_latents(
                table,
                self._parts.autoencoder,
                self._autoencoder,
                bucket_of,
                resolution,
                self._recipe.data.buckets,
                share=self._share,
                report=self._report(f"latents of {name}"),
                skip=self._unreadable,
            )
        if self._text_encoder is not None:
            embeddings = add_embeddings(
                table,
                self._parts.text_encoder,
                self._text_encoder,
                share=self._share,
                report=self._report(f"embeddings of {name}"),
            )
        return Source(table, bucket_of, repeats, weight, latents, embeddings)

    def class_images(self, recipe: ClassImagesRecipe) -> Source:
        """DreamBooth's prior; the pictures are made first."""
        assert self._recipe.start is not None  # or the recipe would be invalid
        folder = class_images_folder(self._output, recipe, self._recipe.start)
        if self._processes.first:
            prediction = self._recipe.objective.prediction_type
            make_class_images(recipe, prediction, self._parts, folder, self._report("class images"))
        return self.source(
            SourceRecipe(folder=folder, caption=recipe.prompt), "class-images", 1, recipe.weight
        )

    def dataset(self, sources: list[Source]) -> Dataset:
        """Sources as one set of records."""
        data = self._recipe.data
        wanted = list(self._recipe.captions.mix)
        return Dataset(sources, data.max_aspect, wanted, data.max_corrupt, data.workers, self._unreadable)

    def _unreadable(self, key: str, reason: str) -> None:
        """A list of the pictures that the tables have and that cannot be read."""
        with (self._output / "unreadable.jsonl").open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"key": key, "reason": reason}, ensure_ascii=False) + "\n")

    def _table(self, source: SourceRecipe, name: str) -> Table:
        path = self._path(source, name)
        if source.table is not None:
            return Table.open(path)
        return ingest(
            self._origin(source), path, self._recipe.data.max_corrupt, self._report(f"reading {name}")
        )

    def _path(self, source: SourceRecipe, name: str) -> Path:
        return source.table or self._folder / f"{name}.lance"

    def _origin(self, source: SourceRecipe) -> Origin:
        if source.folder is not None:
            return image_folder(source.folder, source.caption)
        if source.pixart is not None:
            return official_layout(source.pixart)
        if source.parquet is not None:
            return parquet_files(source.parquet)
        assert source.drawn is not None  # one of the five is given, and a table has no origin
        side = self._resolution(source)
        return drawn_world(source.drawn.first_seed, source.drawn.num_scenes, side, side)

    def _report(self, name: str) -> Callable[[int, int], None]:
        return report_stage(name, quiet=not self._processes.first)
