"""CAME: second moments factored into rows and columns, steps scaled by confidence (Luo et al., 2023, algorithm 2).

Weights may be sharded (DTensor): all arithmetic is on local shards, and what must be a sum over the whole weight is
summed over ranks, many weights to a message. Knows nothing of recipes or schedules.

R rows and C columns are the last two dimensions of a weight; dimensions before them are a batch of matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from pixart_sigma.errors import InvalidInput
from pixart_sigma.training.optimizers.shards import local_part, sharing_ranks, sum_over_ranks, summed

State = dict[str, Tensor]

# Weights are updated in buckets of about so many local elements: enough to spare messages and kernels, few enough to
# bound scratch memory (on a CPU: to stay in its cache, a third of the time of 2**24).
_BUCKET_ELEMENTS = 2**24
_CPU_BUCKET_ELEMENTS = 2**18


class CAME(torch.optim.Optimizer):
    """Confidence-guided adaptive memory-efficient optimisation (https://arxiv.org/abs/2307.02047).

    `betas` are the decays of the update, of the squared gradient and of its instability; `eps` is added to the squared
    gradient and to the instability; an update whose RMS over the weight exceeds `clip_threshold` is scaled down to it.
    There is no bias correction. State is in fp32 whatever the weights' dtype: the update's average as large as the
    weight, and for weights of two or more dimensions four vectors; those of fewer have a full second moment instead.
    Row moments are sharded as the weight is, column moments are whole on every rank (or the reverse), so that they
    survive a checkpoint read by another number of ranks. Weights sharded along two dimensions raise InvalidInput.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
        eps: tuple[float, float] = (1e-30, 1e-16),
        clip_threshold: float = 1.0,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "clip_threshold": clip_threshold,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every weight that has a gradient; returns what `closure` returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            for weight in weights:
                if not self.state[weight]:
                    self.state[weight].update(_first_state(weight))
            for bucket in _buckets([weight for weight in weights if weight.ndim >= 2]):
                self._step_matrices(bucket, group)
            for bucket in _buckets([weight for weight in weights if weight.ndim < 2]):
                self._step_vectors(bucket, group)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, but the state stays in fp32, where torch would round it to the weights' dtype."""
        super().load_state_dict(state_dict)
        keys = [key for group in state_dict["param_groups"] for key in group["params"]]
        weights = [weight for group in self.param_groups for weight in group["params"]]
        for key, weight in zip(keys, weights, strict=True):
            for name, value in state_dict["state"].get(key, {}).items():
                if isinstance(value, Tensor):
                    self.state[weight][name] = value.to(weight.device, torch.float32)

    def _step_matrices(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        beta_update, beta_square, beta_instability = group["betas"]
        gradients = [_gradient(weight) for weight in weights]
        squares = torch._foreach_mul(gradients, gradients)
        torch._foreach_add_(squares, group["eps"][0])
        moments = self._moments(weights, "exp_avg_sq")
        _follow_means(moments, squares, weights, beta_square)
        updates = _divided(gradients, moments, weights)
        _clip(updates, weights, group["clip_threshold"])
        averages = self._averages(weights, updates, beta_update)
        torch._foreach_sub_(updates, averages)
        torch._foreach_mul_(updates, updates)
        torch._foreach_add_(updates, group["eps"][1])
        moments = self._moments(weights, "exp_avg_res")
        _follow_means(moments, updates, weights, beta_instability)
        _apply(weights, _divided(averages, moments, weights), group)

    def _step_vectors(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        beta_update, beta_square, _ = group["betas"]
        gradients = [_gradient(weight) for weight in weights]
        squares = torch._foreach_mul(gradients, gradients)
        torch._foreach_add_(squares, group["eps"][0])
        moments = [local_part(self.state[weight]["exp_avg_sq"]) for weight in weights]
        torch._foreach_mul_(moments, beta_square)
        torch._foreach_add_(moments, squares, alpha=1 - beta_square)
        updates = torch._foreach_rsqrt(moments)
        torch._foreach_mul_(updates, gradients)
        _clip(updates, weights, group["clip_threshold"])
        _apply(weights, self._averages(weights, updates, beta_update), group)

    def _moments(self, weights: list[Tensor], name: str) -> list[tuple[Tensor, Tensor]]:
        """The local (rows (…, R), columns (…, C)) of each weight's factored moment."""
        states = [self.state[weight] for weight in weights]
        return [(local_part(state[f"{name}_row"]), local_part(state[f"{name}_col"])) for state in states]

    def _averages(self, weights: list[Tensor], updates: list[Tensor], beta: float) -> list[Tensor]:
        """The local averages of the update, moved towards `updates`."""
        averages = [local_part(self.state[weight]["exp_avg"]) for weight in weights]
        torch._foreach_mul_(averages, beta)
        torch._foreach_add_(averages, updates, alpha=1 - beta)
        return averages


def _first_state(weight: Tensor) -> State:
    zeros = torch.zeros_like(weight, dtype=torch.float32)
    if weight.ndim < 2:
        return {"exp_avg": zeros, "exp_avg_sq": zeros.clone()}
    if sharing_ranks(weight, weight.ndim - 2) and sharing_ranks(weight, weight.ndim - 1):
        raise InvalidInput(
            f"came takes weights sharded along one dimension, not {weight.placements}; shard along one"
        )
    row, column = summed(zeros.sum(-1)), summed(zeros.sum(-2))
    return {
        "exp_avg": zeros,
        "exp_avg_sq_row": row,
        "exp_avg_sq_col": column,
        "exp_avg_res_row": row.clone(),
        "exp_avg_res_col": column.clone(),
    }


def _gradient(weight: Tensor) -> Tensor:
    gradient = weight.grad
    if isinstance(weight, DTensor) and gradient.placements != weight.placements:
        gradient = gradient.redistribute(placements=weight.placements)
    return local_part(gradient).float()


def _buckets(weights: list[Tensor]) -> Iterator[list[Tensor]]:
    """Runs of weights, the same on all ranks however uneven the shards."""
    bucket: list[Tensor] = []
    size = 0
    for weight in weights:
        num_shards = weight.device_mesh.size() if isinstance(weight, DTensor) else 1
        bucket.append(weight)
        size += weight.numel() // num_shards
        if size >= (_CPU_BUCKET_ELEMENTS if weight.device.type == "cpu" else _BUCKET_ELEMENTS):
            yield bucket
            bucket, size = [], 0
    if bucket:
        yield bucket


def _follow_means(
    moments: list[tuple[Tensor, Tensor]], squares: list[Tensor], weights: list[Tensor], beta: float
) -> None:
    """Move row and column moments towards the means of `squares` (…, R, C), taken over all ranks."""
    rows = [square.sum(-1) for square in squares]
    columns = [square.sum(-2) for square in squares]
    pending = [
        (row, sharing_ranks(weight, weight.ndim - 1)) for row, weight in zip(rows, weights, strict=True)
    ]
    pending += [
        (column, sharing_ranks(weight, weight.ndim - 2))
        for column, weight in zip(columns, weights, strict=True)
    ]
    sum_over_ranks(pending)
    torch._foreach_mul_(rows, [(1 - beta) / weight.shape[-1] for weight in weights])
    torch._foreach_mul_(columns, [(1 - beta) / weight.shape[-2] for weight in weights])
    followers = [row for row, _ in moments] + [column for _, column in moments]
    torch._foreach_mul_(followers, beta)
    torch._foreach_add_(followers, rows + columns)


def _divided(
    values: list[Tensor], moments: list[tuple[Tensor, Tensor]], weights: list[Tensor]
) -> list[Tensor]:
    """`values` (…, R, C) over the square root of the rank-one moment rows ⊗ columns / mean, as new tensors."""
    divided = []
    for value, (row, column), weight in zip(values, moments, weights, strict=True):
        # Rows and columns have the same mean, that of the matrix; the one that is whole here needs no other rank.
        mean = (column if sharing_ranks(weight, weight.ndim - 2) else row).mean(-1, keepdim=True)
        scaled = value * (row / mean).rsqrt().unsqueeze(-1)
        divided.append(scaled.mul_(column.rsqrt().unsqueeze(-2)))
    return divided


def _clip(updates: list[Tensor], weights: list[Tensor], threshold: float) -> None:
    """Scale each update, in place, so that its RMS over all ranks is at most `threshold`."""
    excess = list(torch._foreach_norm(updates))
    torch._foreach_mul_(excess, [1 / (threshold * max(1, weight.numel()) ** 0.5) for weight in weights])
    torch._foreach_mul_(excess, excess)
    sum_over_ranks(
        [
            (square, sharing_ranks(weight, *range(weight.ndim)))
            for square, weight in zip(excess, weights, strict=True)
        ]
    )
    torch._foreach_sqrt_(excess)
    torch._foreach_clamp_min_(excess, 1.0)
    torch._foreach_div_(updates, excess)


def _apply(weights: list[Tensor], updates: list[Tensor], group: dict[str, Any]) -> None:
    parts = [local_part(weight) for weight in weights]
    if group["weight_decay"]:
        # Within the update, in fp32: weights of fewer bits may be too coarse for the decay alone.
        updates = torch._foreach_add(updates, parts, alpha=group["weight_decay"])
    torch._foreach_add_(parts, updates, alpha=-group["lr"])
