"""Several tables as one training set: which of their rows are used, in which bucket, and what a batch needs of them.

Legend: H, W pixels, C latent channels, h, w latents, L caption tokens, E channels of the text encoder.

Records are numbered over all sources. Knows nothing of steps, random draws or devices.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pixart_sigma.data.features import EmbeddingsColumn, LatentsColumn
from pixart_sigma.data.images import CorruptImage, bucket_crop
from pixart_sigma.data.table import Table
from pixart_sigma.errors import InvalidInput

Shape = tuple[int, int]
# A caption's place in its record, and its source.
Named = tuple[tuple[int, str], ...]


BucketOf = Callable[[int, int], Shape]
"""(height, width) of a picture → its bucket, both in pixels."""


@dataclass(frozen=True)
class Source:
    """A table, the buckets of its pictures, how often an epoch sees its records, their weight in the loss, and what is
    cached for them.
    """

    table: Table
    bucket_of: BucketOf
    repeats: int = 1
    weight: float = 1.0
    latents: LatentsColumn | None = None
    embeddings: EmbeddingsColumn | None = None


@dataclass(frozen=True)
class Example:
    """A record, ready to be trained on: either latents or pixels; caption and, if cached, its embedding.

    shape: the bucket, (height, width) in pixels. latents (C, h, w) fp16, unscaled; pixels (H, W, 3) uint8; embedding
    (L, E). A picture that cannot be read is grey and has weight 0.
    """

    key: str
    shape: Shape
    original_size: tuple[int, int]
    weight: float
    caption: str
    latents: Tensor | None
    pixels: NDArray[np.uint8] | None
    embedding: Tensor | None


class Dataset:
    """The usable records of all sources."""

    def __init__(
        self,
        sources: Sequence[Source],
        max_aspect: float,
        caption_sources: Sequence[str],
        max_corrupt: float,
        workers: int,
        unreadable: Callable[[str, str], None],
    ) -> None:
        """caption_sources: those that may be drawn; none: any.

        Records are left out whose aspect ratio is beyond `max_aspect`, whose latents could not be made, or which
        have none of the captions; `left_out` counts them by reason. Raises InvalidInput if none is left, or if the
        share of pictures that cannot be read passes `max_corrupt`. unreadable(key, reason) is told of those that turn
        out to be so later.
        """
        self._sources = list(sources)
        self._max_corrupt = max_corrupt
        self._workers = ThreadPoolExecutor(workers, "pictures")
        self._report = unreadable
        self._unreadable: set[str] = set()
        self.left_out: dict[str, int] = {}
        self.shapes: list[Shape] = []
        self.repeats: list[int] = []
        self._where: list[tuple[int, int]] = []
        self._keys: list[str] = []
        self._sizes: list[tuple[int, int]] = []
        self._captions: list[Named] = []
        seen: set[str] = set()
        # Records have few combinations of captions; each is kept once.
        kinds: dict[tuple[str, ...], Named] = {}
        for number, source in enumerate(self._sources):
            index = source.table.read(["key", "height", "width"])
            sizes = zip(index["height"].to_pylist(), index["width"].to_pylist(), strict=True)
            whole = source.latents.present() if source.latents else np.ones(len(index), bool)
            rows = zip(index["key"].to_pylist(), sizes, source.table.caption_sources(), strict=True)
            for row, (key, size, names) in enumerate(rows):
                if names not in kinds:
                    seen.update(names)
                    named = tuple(enumerate(names))
                    kinds[names] = tuple(
                        entry for entry in named if not caption_sources or entry[1] in caption_sources
                    )
                usable = kinds[names]
                reason = self._unusable(size, bool(whole[row]), bool(usable), max_aspect)
                if reason is not None:
                    self.left_out[reason] = self.left_out.get(reason, 0) + 1
                    continue
                self.shapes.append(source.bucket_of(*size))
                self.repeats.append(source.repeats)
                self._where.append((number, row))
                self._keys.append(key)
                self._sizes.append(size)
                self._captions.append(usable)
        self._check(seen, caption_sources)

    def __len__(self) -> int:
        return len(self._where)

    def key(self, record: int) -> str:
        """What a record is called in its table."""
        return self._keys[record]

    def caption_sources(self, record: int) -> list[str]:
        """The kinds of captions that a record has, of those that may be drawn."""
        return [name for _, name in self._captions[record]]

    @property
    def digest(self) -> str:
        """Changes with the records, their order, buckets and captions' kinds, and with cached features' encoders."""
        digest = hashlib.blake2b(digest_size=16)
        for source in self._sources:
            columns = [column.name for column in (source.latents, source.embeddings) if column is not None]
            digest.update(repr((columns, source.weight)).encode())
        for row in zip(self._keys, self.shapes, self.repeats, self._captions, strict=True):
            digest.update(repr(row).encode())
        return digest.hexdigest()

    def examples(self, records: Sequence[int], captions: Sequence[int], shape: Shape) -> list[Example]:
        """Records of one bucket, each with the caption chosen among its `caption_sources`. Runs in any thread.

        Raises InvalidInput when too many pictures cannot be read.
        """
        found: dict[int, Example] = {}
        for number, source in enumerate(self._sources):
            places = [place for place, record in enumerate(records) if self._where[record][0] == number]
            if places:
                chosen = [(records[place], captions[place]) for place in places]
                found |= zip(places, self._of_source(source, chosen, shape), strict=True)
        return [found[place] for place in range(len(records))]

    def _of_source(self, source: Source, chosen: list[tuple[int, int]], shape: Shape) -> list[Example]:
        rows = [self._where[record][1] for record, _ in chosen]
        places = [self._captions[record][caption][0] for record, caption in chosen]
        columns = ["captions"] if source.latents else ["captions", "image"]
        taken = source.table.take(rows, columns)
        captions = taken["captions"].to_pylist()
        latents = source.latents.take(rows) if source.latents else [None] * len(rows)
        embeddings = source.embeddings.take(rows, places) if source.embeddings else [None] * len(rows)
        pixels: list[NDArray[np.uint8] | None] = [None] * len(rows)
        if not source.latents:
            pixels = list(
                self._workers.map(lambda image: self._pixels(image, shape), taken["image"].to_pylist())
            )
        examples = []
        for place, (record, _) in enumerate(chosen):
            readable = source.latents is not None or pixels[place] is not None
            if not readable:
                self._note(self._keys[record])
                pixels[place] = np.full((*shape, 3), 128, np.uint8)
            examples.append(
                Example(
                    key=self._keys[record],
                    shape=shape,
                    original_size=self._sizes[record],
                    weight=source.weight if readable else 0.0,
                    caption=captions[place][places[place]]["text"],
                    latents=latents[place],
                    pixels=pixels[place],
                    embedding=embeddings[place],
                )
            )
        return examples

    def _pixels(self, image: bytes, shape: Shape) -> NDArray[np.uint8] | None:
        try:
            return bucket_crop(image, *shape)
        except CorruptImage:
            return None

    def _note(self, key: str) -> None:
        if key not in self._unreadable:
            self._report(key, "its picture cannot be read")
        self._unreadable.add(key)
        if len(self._unreadable) > self._max_corrupt * len(self):
            names = ", ".join(sorted(self._unreadable)[:3])
            raise InvalidInput(
                f"{len(self._unreadable)} of {len(self)} pictures cannot be read (such as {names}), more than "
                f"data.max_corrupt {self._max_corrupt:g}; repair or remove them, or raise the limit"
            )

    @staticmethod
    def _unusable(size: tuple[int, int], whole: bool, captioned: bool, max_aspect: float) -> str | None:
        if not whole:
            return "its picture cannot be read"
        if max(size) > max_aspect * min(size):
            return f"its aspect ratio is beyond {max_aspect:g}"
        return None if captioned else "it has none of the captions that are drawn"

    def _check(self, seen: set[str], wanted: Sequence[str]) -> None:
        if self and (absent := sorted(set(wanted) - seen)):
            raise InvalidInput(
                f"captions.mix asks for {', '.join(absent)}, the records have {', '.join(sorted(seen))}; "
                "name what is there"
            )
        total = len(self) + sum(self.left_out.values())
        corrupt = self.left_out.get("its picture cannot be read", 0)
        if total and corrupt > self._max_corrupt * total:
            raise InvalidInput(
                f"{corrupt} of {total} pictures cannot be read, more than data.max_corrupt {self._max_corrupt:g}; "
                "repair or remove them, or raise the limit"
            )
        if not self:
            why = "; ".join(f"{reason}: {count}" for reason, count in self.left_out.items())
            if wanted and not seen & set(wanted):
                why = f"captions.mix asks for {', '.join(wanted)}, the records have {', '.join(sorted(seen)) or 'none'}"
            paths = ", ".join(source.table.path.name for source in self._sources)
            raise InvalidInput(
                f"no record of {paths} can be used ({why or 'there is none'}); look at data.sources"
            )
