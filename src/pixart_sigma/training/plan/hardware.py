"""Machines: published figures of GPUs, and rates that are measured where this runs.

Legend: T tokens of a micro-batch, D width.

Knows nothing of transformers but for the shapes it is given.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pixart_sigma.errors import InvalidInput
from pixart_sigma.model.attention import attend

GIB = 2**30
_UPDATED_MATRICES = 16


@dataclass(frozen=True)
class GPU:
    """`tflops`: dense bf16 rate with fp32 sums, published or measured; `memory_gib` as sold, or as found.

    `attention_rate` is relative to that; nobody publishes it, so it is 1 where it was not measured.
    """

    name: str
    tflops: float
    memory_gib: float
    note: str = ""
    attention_rate: float = 1.0
    measured: bool = False


# NVIDIA's data sheets (V100, A100, H100 SXM, H200 SXM, L40S) and architecture papers (GA102, Ada), without sparsity.
GPUS = {
    gpu.name: gpu
    for gpu in (
        GPU(
            "v100-32g", 125.0, 32, "it has no bf16: the rate is its fp16 one, which this trainer does not use"
        ),
        GPU("a100-40g", 312.0, 40),
        GPU("a100-80g", 312.0, 80),
        GPU("h100-80g", 989.0, 80),
        GPU("h200-141g", 989.0, 141),
        GPU("l40s", 362.0, 48),
        GPU("rtx3090", 71.0, 24),
        GPU("rtx4090", 165.2, 24),
    )
}


def find_gpu(name: str) -> GPU:
    """By name, or "cpu": this machine, measured. Raises InvalidInput for others."""
    if name == "cpu":
        return _this_machine()
    if name not in GPUS:
        raise InvalidInput(f"unknown GPU {name!r}; one of {', '.join(GPUS)}, or cpu (--gpu-type a100-80g)")
    return GPUS[name]


@dataclass(frozen=True)
class Rates:
    """What a device does in a second: `matrix` and `attention` in FLOP/s, `elementwise` in bytes read and written.

    Each is that of a forward and backward pass together, with the forward's operations counted three times. `update`:
    weights that are cast, clipped and moved by AdamW.
    """

    matrix: float
    attention: float
    elementwise: float
    update: float


@dataclass(frozen=True)
class Shape:
    """What rates are measured on: `batch` sequences of `tokens`, in `heads` of `head_dim`."""

    batch: int
    tokens: int
    heads: int
    head_dim: int

    @property
    def width(self) -> int:
        return self.heads * self.head_dim


def measured_rates(
    device: torch.device,
    dtype: torch.dtype,
    shape: Shape,
    repeats: int = 5,
) -> Rates:
    """Time an MLP's two products, self-attention, and norms, additions and GELU, on random numbers."""
    rows, width = shape.batch * shape.tokens, shape.width
    wide = torch.randn(4 * width, width, device=device, dtype=dtype).mul_(width**-0.5).requires_grad_()
    narrow = torch.randn(width, 4 * width, device=device, dtype=dtype).mul_(width**-0.5).requires_grad_()
    tokens = torch.randn(rows, width, device=device, dtype=dtype, requires_grad=True)
    heads = (shape.batch, shape.heads, shape.tokens, shape.head_dim)
    queries, keys, values = (
        torch.randn(heads, device=device, dtype=dtype, requires_grad=True) for _ in range(3)
    )
    stream = torch.randn(rows, width, device=device, requires_grad=True)
    hidden = torch.randn(rows, 4 * width, device=device, dtype=dtype, requires_grad=True)

    def products() -> Tensor:
        return F.linear(F.linear(tokens, wide), narrow)

    def attention() -> Tensor:
        return attend(queries, keys, values)

    def norm() -> Tensor:
        return stream + F.layer_norm(stream, (width,)) * 0.5

    def gelu() -> Tensor:
        return F.gelu(hidden, approximate="tanh")

    matrix = (
        3 * 2 * 2 * rows * width * 4 * width / _seconds(products, (tokens, wide, narrow), device, repeats)
    )
    scores = (
        3 * 4 * rows * shape.tokens * width / _seconds(attention, (queries, keys, values), device, repeats)
    )
    # The norm, the product and the sum read and write 28 bytes an element, and about twice that backwards.
    element = torch.finfo(dtype).bits // 8
    moved = 3 * rows * width * (28 + 4 * 2 * element)
    elementwise = moved / (
        _seconds(norm, (stream,), device, repeats) + _seconds(gelu, (hidden,), device, repeats)
    )
    return Rates(
        matrix=matrix, attention=scores, elementwise=elementwise, update=_update_rate(device, repeats)
    )


def _update_rate(device: torch.device, repeats: int) -> float:
    # More than a cache holds, as a model's weights are.
    weights = [torch.randn(1024, 1024, device=device, requires_grad=True) for _ in range(_UPDATED_MATRICES)]
    optimizer = torch.optim.AdamW(weights, fused=True)
    gradients = [torch.randn_like(weight, dtype=torch.bfloat16) for weight in weights]

    def update() -> None:
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.detach().to(torch.bfloat16)
            weight.grad = gradient.float()
        torch.nn.utils.clip_grad_norm_(weights, 1.0, foreach=True)
        optimizer.step()

    return sum(weight.numel() for weight in weights) / _median_seconds(update, device, repeats)


def _seconds(
    forward: Callable[[], Tensor], inputs: Sequence[Tensor], device: torch.device, repeats: int
) -> float:
    """Forward and backward; gradients are not added to earlier ones."""
    outcome = torch.ones_like(forward())

    def both() -> None:
        result = forward()
        torch.autograd.grad(result, inputs, outcome)

    return _median_seconds(both, device, repeats)


def _median_seconds(work: Callable[[], None], device: torch.device, repeats: int) -> float:
    """The median time of some work, after one that warms up."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def _this_machine() -> GPU:
    shape = Shape(batch=2, tokens=256, heads=16, head_dim=72)
    rates = measured_rates(torch.device("cpu"), torch.bfloat16, shape, repeats=2)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    relative = rates.attention / rates.matrix
    note = (
        f"measured here on products of XL/2's width, with {torch.get_num_threads()} threads; "
        f"attention runs at {relative:.2f} of that rate"
    )
    return GPU("cpu", rates.matrix / 1e12, memory / GIB, note, relative, measured=True)
