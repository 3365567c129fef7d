"""Linear layers of the blocks in 8 bits, weights and what passes through: a lossy shortcut, for inference.

Legend: R rows of whatever passes through, I inputs, O outputs.

Both sides are symmetric: a weight's rows have a scale each (a scale per output), fixed when it is made; each row that
passes through (a token) has one of its own, found as it passes. Their product is of whole numbers, exact in 32 bits,
so the only error is that of rounding both sides: at most half a scale for each number (Dettmers et al. 2022, LLM.int8,
without its exceptions for outliers).

Patches, timesteps, captions and the output, three parts in a hundred of the weights, stay as they are.
Knows nothing of files or of what the model is used for.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pixart_sigma.errors import InvalidInput
from pixart_sigma.model.int8_memory import LEVELS, LINEAR_LAYERS, MOST_ROWS, WIDTH_MULTIPLE
from pixart_sigma.products import PLAIN_LINEARS

_LEAST_CAPABILITY = (7, 5)
"""Turing's, the first GPUs whose tensor cores multiply whole numbers."""
_LEAST_ROWS = 32
"""cuBLAS multiplies more than 16 rows of whole numbers, and aligned ones fastest; fewer are filled up with zeros."""


class Int8Linear(nn.Module):
    """A linear layer whose product is computed in whole numbers; made from one in floating point."""

    def __init__(self, linear: nn.Linear) -> None:
        """Raises InvalidInput for sizes that a GPU's integer units do not take."""
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        if self.in_features % WIDTH_MULTIPLE or self.out_features % WIDTH_MULTIPLE:
            raise InvalidInput(
                f"int8 multiplies layers whose sizes are multiples of {WIDTH_MULTIPLE}, and this model has one of "
                f"{self.in_features} to {self.out_features}; use it without int8"
            )
        levels, scale = _quantised(linear.weight.detach())
        self.register_buffer("levels", levels)
        # As bits: a model that is cast to bf16 would round it, and every output of a row by the same factor.
        self.register_buffer("scale_bits", scale.view(torch.int32))
        self.bias = linear.bias

    def forward(self, rows: Tensor) -> Tensor:
        """rows (..., I) → (..., O), in their dtype."""
        flat = rows.reshape(-1, self.in_features)
        if len(flat) <= MOST_ROWS:
            return self._product(flat).view(*rows.shape[:-1], self.out_features)
        # Products are in 32 bits before they are in the rows' dtype: so many of them at a time.
        result = flat.new_empty(len(flat), self.out_features)
        for start in range(0, len(flat), MOST_ROWS):
            some = slice(start, start + MOST_ROWS)
            result[some] = self._product(flat[some])
        return result.view(*rows.shape[:-1], self.out_features)

    def _product(self, rows: Tensor) -> Tensor:
        levels, scale = _quantised(rows)
        missing = _LEAST_ROWS - len(rows)
        if missing > 0 and rows.is_cuda:
            levels = nn.functional.pad(levels, (0, 0, 0, missing))
        # Cast first: to multiply numbers of two kinds torch would make another copy.
        result = torch._int_mm(levels, self.levels.t())[: len(rows)].float()
        result *= scale
        result *= self.scale_bits.view(torch.float32).t()
        if self.bias is not None:
            result += self.bias
        return result.to(rows.dtype)

    def extra_repr(self) -> str:
        """For print(model)."""
        return f"in_features={self.in_features}, out_features={self.out_features}"


def check_int8_device(device: torch.device) -> None:
    """Raises InvalidInput for a device on which torch does not multiply whole numbers."""
    fits = device.type == "cpu"
    rocm = device.type == "cuda" and torch.version.hip is not None  # torch calls AMD's GPUs cuda, too
    if device.type == "cuda" and not rocm:
        fits = torch.cuda.get_device_capability(device) >= _LEAST_CAPABILITY
    if not fits:
        raise InvalidInput(
            f"int8 runs on a CPU and on NVIDIA GPUs from Turing on, not on {device}{' of ROCm' if rocm else ''}; use "
            "--device cpu, or leave --int8 out"
        )


def quantise_linears(blocks: nn.ModuleList) -> None:
    """Replaces the linear layers of a transformer's blocks, in place.

    Raises InvalidInput for blocks that have others, such as adapters that were not merged, and for sizes that do not
    fit.
    """
    for index, block in enumerate(blocks):
        _check_plain(block, index)
    for block in blocks:
        for name in LINEAR_LAYERS:
            block.set_submodule(name, Int8Linear(block.get_submodule(name)))


def int8_layers(model: nn.Module) -> dict[str, Int8Linear]:
    """Those that are in 8 bits, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Int8Linear)}


def _check_plain(block: nn.Module, index: int) -> None:
    """Whether its linear layers are just those that are known, and just linear layers."""
    found = {name: type(module) for name, module in block.named_modules() if hasattr(module, "in_features")}
    strange = sorted(
        {name for name in LINEAR_LAYERS if found.get(name) not in PLAIN_LINEARS}
        | found.keys() - set(LINEAR_LAYERS)
    )
    if strange:
        raise InvalidInput(
            f"int8 takes plain linear layers, and block {index} has another at {strange[0]}; merge adapters first, and "
            "quantise once"
        )


def _quantised(rows: Tensor) -> tuple[Tensor, Tensor]:
    """rows (R, I) of any floating dtype → levels (R, I) int8, scale (R, 1) fp32; their product is the rows again."""
    scale = rows.abs().amax(1, keepdim=True).float() / LEVELS
    scale.clamp_(min=torch.finfo(torch.float32).tiny)  # a row of zeros
    return rows.to(torch.float32, copy=True).div_(scale).round_().to(torch.int8), scale
