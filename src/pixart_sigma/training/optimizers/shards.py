"""Weights in parts: a rank's own part, and sums over whole weights. Knows nothing of what they are used for."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial, Replicate


def local_part(tensor: Tensor) -> Tensor:
    """This rank's part of a sharded tensor, or the tensor itself; writing to it writes to the tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def summed(tensor: Tensor) -> Tensor:
    """With sums that are pending over ranks carried out; checkpoints refuse tensors with pending ones."""
    if not isinstance(tensor, DTensor):
        return tensor
    placements = [Replicate() if isinstance(place, Partial) else place for place in tensor.placements]
    return tensor.redistribute(placements=placements)


def sharing_ranks(weight: Tensor, *dims: int) -> list[dist.ProcessGroup]:
    """The groups of ranks over which a sum along `dims` (from 0) is spread; none if those are not sharded."""
    if not isinstance(weight, DTensor):
        return []
    return [
        weight.device_mesh.get_group(index)
        for index, placement in enumerate(weight.placements)
        # Shard, or its strided form, has a dimension; Replicate has none.
        if getattr(placement, "dim", None) in dims
    ]


def sum_over_ranks(pending: list[tuple[Tensor, list[dist.ProcessGroup]]]) -> None:
    """Sum each tensor, in place, over its groups of ranks; one message a group, however many tensors."""
    shared: dict[dist.ProcessGroup, list[Tensor]] = {}
    for tensor, groups in pending:
        for group in groups:
            shared.setdefault(group, []).append(tensor)
    for group, tensors in shared.items():
        message = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(message, group=group)
        parts = message.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))
