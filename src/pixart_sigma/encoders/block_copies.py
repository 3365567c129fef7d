"""A model's blocks on their way to a GPU: one is copied there while the one before it is used.

The host's side is pinned memory for one block, which a copy leaves without the host's waiting; on the device there are
two places, filled in turn by a stream of their own.
Knows nothing of files, nor of what the blocks compute.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class _Place:
    def __init__(self, shapes: Mapping[str, Tensor], device: torch.device) -> None:
        self.weights = {name: torch.empty_like(meta, device=device) for name, meta in shapes.items()}
        self.filled = torch.cuda.Event()
        self.left = torch.cuda.Event()


class BlockCopies:
    """`send` block after block from any one thread; `take` and `leave` each in the one that computes.

    A block is sent only when the one two before it was left.
    """

    def __init__(self, shapes: Mapping[str, Tensor], device: torch.device) -> None:
        """shapes: a block's weights on the meta device, in the dtypes that they shall have."""
        self._stream = torch.cuda.Stream(device)
        self._compute = torch.cuda.current_stream(device)
        self._pinned = {name: _pinned_like(meta) for name, meta in shapes.items()}
        # Allocated for the stream that computes: whoever gets this memory next will use it after that.
        self._places = [_Place(shapes, device) for _ in range(2)]
        for place in self._places:
            place.left.record(self._compute)
        self._num_sent = 0

    def send(self, weights: Mapping[str, Tensor]) -> int:
        """Weights on the host, of any float dtype → the number of the place that they are copied to."""
        number = self._num_sent % 2
        self._places[1 - number].filled.synchronize()  # the last copy has left the pinned memory
        for name, pinned in self._pinned.items():
            pinned.copy_(weights[name])
        place = self._places[number]
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(place.left)
            for name, pinned in self._pinned.items():
                place.weights[name].copy_(pinned, non_blocking=True)
            place.filled.record(self._stream)
        self._num_sent += 1
        return number

    def take(self, number: int) -> dict[str, Tensor]:
        """The weights in a place; what is computed from now on sees them."""
        self._compute.wait_event(self._places[number].filled)
        return dict(self._places[number].weights)

    def leave(self, number: int) -> None:
        """What was computed until now may still see the weights; they may be overwritten after that."""
        self._places[number].left.record(self._compute)

    def finish(self) -> None:
        """Waits for copies that nobody took, before the memory is given away."""
        self._stream.synchronize()


def _pinned_like(meta: Tensor) -> Tensor:
    return torch.empty(meta.shape, dtype=meta.dtype, pin_memory=True)
