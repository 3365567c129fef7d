"""The next batches are loaded by a thread while the current one is trained on.

Loading is a pure function of its key, so it does not matter when it happens. Knows nothing of what is loaded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

K = TypeVar("K")
V = TypeVar("V")


def prefetched(load: Callable[[K], V], keys: Iterable[K], depth: int = 2) -> Generator[V, None, None]:
    """load(key) for each key in order, `depth` of them ahead. What load raises is raised here, in its turn.

    To be closed by those who leave early, or what is queued is loaded first.
    """
    remaining = iter(keys)
    # A second team of OpenMP threads would be more than there are cores, and then libgomp's workers sleep between any
    # two loops of the training, too, for as long as the process lives.
    with ThreadPoolExecutor(1, "prefetch", torch.set_num_threads, (1,)) as thread:
        waiting: deque[Future[V]] = deque()
        try:
            for key in remaining:
                waiting.append(thread.submit(load, key))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
