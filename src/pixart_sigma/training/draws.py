"""Random draws keyed by what they are for: to resume a run is arithmetic, no generator state is saved.

Whatever belongs to one sample of a batch is keyed by (seed, epoch, global step, global sample index) too, so that
neither the number of processes nor that of micro-batches changes anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor


def keyed_generator(seed: int, step: int, purpose: str) -> torch.Generator:
    """A CPU generator that depends on its three keys alone; draws for one purpose never shift another's."""
    return _generator(f"{seed}/{step}/{purpose}")


def sample_generators(
    seed: int, epoch: int, step: int, batch_size: int, positions: Iterable[int], purpose: str
) -> list[torch.Generator]:
    """A generator for each of the samples at `positions` of the global batch of `step`."""
    return [
        _generator(f"{seed}/{epoch}/{step}/{step * batch_size + position}/{purpose}")
        for position in positions
    ]


def _generator(key: str) -> torch.Generator:
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def batch_indices(seed: int, step: int, batch_size: int, num_samples: int) -> Tensor:
    """Indices (batch_size,) int64 of the batch of `step` (from 0): each epoch is a fresh permutation.

    A batch may straddle epochs, so every sample is seen equally often whatever the sizes.
    """
    first = step * batch_size
    positions = torch.arange(first, first + batch_size)
    indices = torch.empty(batch_size, dtype=torch.int64)
    for epoch in range(first // num_samples, (first + batch_size - 1) // num_samples + 1):
        here = positions // num_samples == epoch
        indices[here] = _permutation(seed, epoch, num_samples)[positions[here] % num_samples]
    return indices


_cached: dict[tuple[int, int, int], Tensor] = {}


def _permutation(seed: int, epoch: int, num_samples: int) -> Tensor:
    key = (seed, epoch, num_samples)
    if key not in _cached:
        while len(_cached) >= 2:
            _cached.pop(next(iter(_cached)))
        _cached[key] = torch.randperm(num_samples, generator=keyed_generator(seed, epoch, "order"))
    return _cached[key]
