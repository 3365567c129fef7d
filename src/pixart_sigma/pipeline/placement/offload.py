"""Weights that lie in host memory and visit the device block by block, one block ahead of the computation.

While a block computes, the next one's weights are copied beside it on a stream of their own; what a block had is let
go of when the next one begins. So the device holds two blocks, and what is not in a block (1 % of XL/2). diffusers'
group offloading does not fit: it fetches weights in `forward` alone, and a block's keys and values of a caption are
computed before that.

Knows nothing of what a block computes. Blocks run in their order, over and over: after the last comes the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pixart_sigma.model.transformer import PixArtTransformer

_METHODS = ("forward", "caption_keys_and_values", "modulation")
"""What a block computes with its weights, in each of which they are on the device."""


@contextmanager
def offloaded(model: PixArtTransformer, device: torch.device) -> Iterator[PixArtTransformer]:
    """A model whose blocks' weights lie in host memory → the same, to be used on `device` until the end.

    For inference: weights must not change meanwhile. Afterwards the whole model is in host memory again.
    """
    model.to("cpu")
    for module in model.children():
        if module is not model.transformer_blocks:
            module.to(device)
    model.scale_shift_table.data = model.scale_shift_table.data.to(device)
    visits = _Visits(model.transformer_blocks, device)
    formers = [dict(vars(block)) for block in model.transformer_blocks]
    try:
        for index, block in enumerate(model.transformer_blocks):
            for name in _METHODS:
                setattr(block, name, visits.around(index, getattr(block, name)))
        yield model
    finally:
        for block, former in zip(model.transformer_blocks, formers, strict=True):
            for name in _METHODS:
                block.__dict__.pop(name, None)
                if name in former:  # compiled, say
                    setattr(block, name, former[name])
        visits.end()
        model.to("cpu")


class _Visits:
    """Which blocks' weights are on the device."""

    def __init__(self, blocks: Sequence[nn.Module], device: torch.device) -> None:
        self._device = device
        self._weights = [[*block.parameters(), *block.buffers()] for block in blocks]
        self._kept: list[list[Tensor]] = []
        for index, block in enumerate(self._weights):
            self._kept.append([_in_host_memory(weight.data, device) for weight in block])
            self._leave(index)  # at once: what was copied goes, and host memory never holds all weights twice
        self._visiting: list[int] = []
        self._streams = torch.get_device_module(device)
        self._copies = self._streams.Stream(device)

    def around(self, index: int, method: Callable[..., Any]) -> Callable[..., Any]:
        """A method of block `index` that has its weights on the device when it runs."""

        def visiting(*inputs: Any, **named: Any) -> Any:
            self._receive(index)
            return method(*inputs, **named)

        return visiting

    def end(self) -> None:
        """All weights are in host memory again."""
        self._streams.synchronize(self._device)
        while self._visiting:
            self._leave(self._visiting.pop())

    def _receive(self, index: int) -> None:
        following = (index + 1) % len(self._weights)
        computing = self._streams.current_stream(self._device)
        if index not in self._visiting:  # the first call, or one out of order
            self._copies.wait_stream(computing)
            self._leave_all_but(())
            self._fetch(index)
        computing.wait_stream(self._copies)
        if following in self._visiting:
            return
        # Memory of the block before is used again by the copies: they wait until it has been computed with.
        self._leave_all_but((index,))
        self._copies.wait_stream(computing)
        self._fetch(following)

    def _fetch(self, index: int) -> None:
        with self._streams.stream(self._copies):
            for weight, kept in zip(self._weights[index], self._kept[index], strict=True):
                weight.data = kept.to(self._device, non_blocking=True, copy=True)
        self._visiting.append(index)

    def _leave_all_but(self, staying: Sequence[int]) -> None:
        for index in [index for index in self._visiting if index not in staying]:
            self._visiting.remove(index)
            self._leave(index)

    def _leave(self, index: int) -> None:
        for weight, kept in zip(self._weights[index], self._kept[index], strict=True):
            weight.data = kept


def _in_host_memory(weight: Tensor, device: torch.device) -> Tensor:
    """Where the device can copy from by itself; on a CPU, the weight as it is."""
    return weight if device.type == "cpu" else weight.pin_memory()
