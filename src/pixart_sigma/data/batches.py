"""Which records make up the batch of a step: buckets of one shape, in an order keyed by seed and epoch.

Legend: R records, B samples of the global batch.

A batch has one shape. In an epoch every bucket's records (each as often as its source repeats) are shuffled and cut in
batches, and the batches of all buckets are shuffled together. The last, partial batch of a bucket is dropped, or
filled up from the bucket's start. Knows nothing of processes, pictures or tables: a batch is a pure function of the
step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pixart_sigma.errors import InvalidInput

Shape = tuple[int, int]


@dataclass(frozen=True)
class Batch:
    """The records (B,) int64 of a step, all of one (height, width) in pixels."""

    epoch: int
    shape: Shape
    records: NDArray[np.int64]


class BatchOrder:
    """The batches of a run over R records."""

    def __init__(
        self,
        shapes: Sequence[Shape],
        repeats: Sequence[int],
        batch_size: int,
        partial: Literal["drop", "wrap"],
        seed: int,
    ) -> None:
        """shapes, repeats: (R,), a record's bucket and how often an epoch sees it.

        Raises InvalidInput if no batch is left.
        """
        self._batch_size = batch_size
        self._seed = seed
        self._wrap = partial == "wrap"
        self._shapes = sorted(set(shapes))
        number = {shape: index for index, shape in enumerate(self._shapes)}
        bucket = np.repeat(np.array([number[shape] for shape in shapes], dtype=np.int64), repeats)
        records = np.repeat(np.arange(len(shapes), dtype=np.int64), repeats)
        self._members = [records[bucket == index] for index in range(len(self._shapes))]
        counts = [self._num_batches(len(members)) for members in self._members]
        self._buckets = np.repeat(np.arange(len(self._shapes)), counts)
        self._positions = np.concatenate([np.arange(count) for count in counts] or [np.zeros(0, np.int64)])
        if not len(self._buckets):
            raise InvalidInput(
                f"{len(records)} records in {len(self._shapes)} buckets make no whole batch of {batch_size}; "
                'lower run.batch_size, or set data.partial_batches = "wrap"'
            )

    def _num_batches(self, num_records: int) -> int:
        return -(-num_records // self._batch_size) if self._wrap else num_records // self._batch_size

    @property
    def batches_per_epoch(self) -> int:
        return len(self._buckets)

    def summary(self) -> str:
        """A line for the log: records, buckets, batches, and what happens to the partial ones."""
        num = sum(len(members) for members in self._members)
        odd = sum(len(members) % self._batch_size for members in self._members)
        partial = sum(1 for members in self._members if len(members) % self._batch_size)
        fate = "none is partial"
        if partial:
            action = "filled up from their bucket's start" if self._wrap else "dropped"
            fate = f"{partial} partial ones with {odd:,} records are {action}"
        return (
            f"{num:,} records an epoch in {len(self._shapes)} buckets: {self.batches_per_epoch:,} batches of "
            f"{self._batch_size}; {fate}"
        )

    def batch(self, step: int) -> Batch:
        """The batch of `step`, from 0."""
        epoch, index = divmod(step, self.batches_per_epoch)
        chosen = self._epoch_order(epoch)[index]
        bucket, position = int(self._buckets[chosen]), int(self._positions[chosen])
        order = self._bucket_order(epoch, bucket)
        first = position * self._batch_size
        places = np.arange(first, first + self._batch_size) % len(order)
        return Batch(epoch, self._shapes[bucket], self._members[bucket][order[places]])

    @lru_cache(maxsize=2)  # noqa: B019 - one order lives as long as its run
    def _epoch_order(self, epoch: int) -> NDArray[np.int64]:
        return _generator(self._seed, epoch, "batches").permutation(len(self._buckets))

    @lru_cache(maxsize=128)  # noqa: B019 - two epochs of the largest table of buckets
    def _bucket_order(self, epoch: int, bucket: int) -> NDArray[np.int64]:
        return _generator(self._seed, epoch, f"bucket {bucket}").permutation(len(self._members[bucket]))


def _generator(seed: int, epoch: int, purpose: str) -> np.random.Generator:
    digest = hashlib.blake2b(f"{seed}/{epoch}/{purpose}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))
