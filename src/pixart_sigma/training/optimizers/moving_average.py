"""The exponential moving average of a model's trainable weights, whole or sharded. Knows nothing of files."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from pixart_sigma.training.optimizers.shards import local_part


class MovingAverage:
    """Averages in fp32 of the weights that require a gradient, whatever their dtype, sharded as they are.

    `tensors` maps each weight's name to its average, a DTensor where the weight is one; checkpoints read and write it
    in place. Made after the model is sharded; a weight must stay the same tensor from then on.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._model = model
        _release_gathered(model)
        named = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self.tensors = {name: weight.detach().float().clone() for name, weight in named.items()}
        self._live = [local_part(weight.detach()) for weight in named.values()]
        self._kept: list[Tensor] | None = None

    def update(self, step: int) -> None:
        """Move towards the live weights after `step` (from 0); early on over a shorter past, to forget the start."""
        if self._kept is not None:
            raise RuntimeError("the averaged weights are in the model; swap() back before update()")
        decay = min(self.decay, (step + 1) / (step + 10))
        averages = self._averages()
        if all(live.dtype == torch.float32 for live in self._live):
            torch._foreach_lerp_(averages, self._live, 1 - decay)
        else:
            for average, live in zip(averages, self._live, strict=True):
                average.lerp_(live.float(), 1 - decay)

    def swap(self) -> None:
        """Put the averages in the model's weights, in place; a second call puts the live weights back.

        `tensors` holds the averages all the while: weights of fewer bits could not keep them. The live weights take
        as much memory again until they are back.
        """
        # Weights that a forward without backward left gathered would go on being used.
        _release_gathered(self._model)
        if self._kept is None:
            self._kept = [live.clone() for live in self._live]
            torch._foreach_copy_(self._live, self._averages())
        else:
            torch._foreach_copy_(self._live, self._kept)
            self._kept = None

    def _averages(self) -> list[Tensor]:
        # Looked up every time: whoever loads a checkpoint may have put other tensors in their place.
        return [local_part(average) for average in self.tensors.values()]


def _release_gathered(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
