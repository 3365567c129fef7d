"""Matrix products in fp32 on AMD's Zen 5, at twice the rate of torch's own.

torch multiplies matrices of fp32 on a CPU with MKL, which on an AMD Zen 5 reaches half of what oneDNN does there, with
which torch multiplies those of bf16 (docs/log.md). For inference alone: there is no backward pass.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _is_faster() -> bool:
    has = torch.cpu.get_capabilities()
    is_zen_5 = "AMD" in has.get("cpu_name", "") and has.get("avx512_vp2intersect", False)  # Zen 4 lacks it
    return torch.backends.mkldnn.is_available() and is_zen_5


IS_FASTER = _is_faster()
"""Whether this processor is one where oneDNN is known to multiply fp32 faster than MKL."""


class Linear(nn.Linear):
    """torch's linear layer, which multiplies the faster way."""

    def forward(self, input: Tensor) -> Tensor:
        """input (..., I) → (..., O)."""
        return linear(input, self.weight, self.bias)


PLAIN_LINEARS = (nn.Linear, Linear)
"""Layers that are their weights and nothing else, if these are their very types."""


def linear(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """rows (..., I), weight (O, I), bias (O,) → (..., O), the faster way."""
    if _takes(rows, weight):
        return product(rows, weight, bias)
    return F.linear(rows, weight, bias)


def _takes(rows: Tensor, weight: Tensor) -> bool:
    return (
        IS_FASTER
        and rows.dtype == weight.dtype == torch.float32
        and rows.device.type == "cpu"
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        # Not one that is quantised, nor one that is spread over processes.
        and type(weight) in (Tensor, nn.Parameter)
        and type(rows) is Tensor
    )


def product(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """rows (..., I), weight (O, I), bias (O,) → (..., O) in fp32, by oneDNN, without gradients."""
    if torch.compiler.is_compiling():
        return _operation(rows, weight, bias)
    result: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return result


# For the compiler alone, which cannot take oneDNN's: called by itself, an operation of one's own imports the compiler.
@torch.library.custom_op("pixart_sigma::product", mutates_args=(), device_types="cpu")
def _operation(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return product(rows, weight, bias)


@_operation.register_fake
def _(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return rows.new_empty((*rows.shape[:-1], weight.shape[0]))
