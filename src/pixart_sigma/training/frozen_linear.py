"""Linear layers that are not trained, their weights stored in fewer bits: bf16, int8 (a scale per row), or nf4.

Legend: N rows of whatever passes through, I inputs, O outputs.

bitsandbytes quantises; its own layers are not used: on the CPU they repack the weights at the first evaluation, in
mixed precision they round the biases, and sharding must be taught each of them. Here what is stored is a buffer,
which sharding and optimisers leave alone, and a weight exists only while it is multiplied with, also in the
backward pass. Knows nothing of adapters.
"""

from __future__ import annotations

import logging
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixart_sigma.errors import MissingDependency
from pixart_sigma.model import PixArtTransformer
from pixart_sigma.products import PLAIN_LINEARS

Storage = Literal["fp32", "bf16", "int8", "nf4"]

NF4_BLOCK = 64  # QLoRA, section 3: weights that share a scale
INT8_LEVELS = 127


class FrozenLinear(nn.Linear):
    """A linear layer of which nothing learns; computes in the input's dtype, or in that of autocast."""

    def __init__(self, linear: nn.Linear, storage: Storage) -> None:
        """Raises MissingDependency for int8 and nf4 without bitsandbytes."""
        nn.Module.__init__(self)
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        self.storage = storage
        self.bias = linear.bias
        stored, scale = _encode(linear.weight.detach().float(), storage)
        # Not in state dicts: whoever goes on from a checkpoint reads the base model again.
        self.register_buffer("stored", stored, persistent=False)
        self.register_buffer("scale", scale, persistent=False)
        self.requires_grad_(False)

    @property
    def weight(self) -> Tensor:  # type: ignore[override, unused-ignore]
        """The weight (O, I) in fp32, made anew."""
        return _decode(self.stored, self.scale, self.storage, self._shape, torch.float32)

    @property
    def _shape(self) -> tuple[int, int]:
        return self.out_features, self.in_features

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (..., I) → (..., O)."""
        kind = tokens.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tokens.dtype
        bias = None if self.bias is None else self.bias.to(dtype)
        return _Product.apply(tokens.to(dtype), self.stored, self.scale, bias, self.storage, self._shape)

    def extra_repr(self) -> str:
        """For print(model)."""
        return f"in_features={self.in_features}, out_features={self.out_features}, storage={self.storage}"


def freeze_linears(transformer: PixArtTransformer, storage: Storage) -> None:
    """Replace every linear layer of the blocks that is not trained, in place; "fp32" leaves them as they are.

    The rest of the model, three parts in a hundred, stays in fp32: it holds the timestep and the output.
    Raises MissingDependency for int8 and nf4 without bitsandbytes.
    """
    if storage == "fp32":
        return
    for block in transformer.transformer_blocks:
        for name, module in list(block.named_modules()):
            if type(module) in PLAIN_LINEARS and not module.weight.requires_grad:
                parent, _, leaf = name.rpartition(".")
                setattr(block.get_submodule(parent), leaf, FrozenLinear(module, storage))


class _Product(torch.autograd.Function):
    """tokens @ weight.T + bias, with a gradient for the tokens alone; keeps the stored form, not the weight."""

    @staticmethod
    def forward(
        context: Any,
        tokens: Tensor,
        stored: Tensor,
        scale: Tensor | None,
        bias: Tensor | None,
        storage: Storage,
        shape: tuple[int, int],
    ) -> Tensor:
        context.save_for_backward(stored, scale)
        context.storage, context.shape = storage, shape
        return F.linear(tokens, _decode(stored, scale, storage, shape, tokens.dtype), bias)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        stored, scale = context.saved_tensors
        weight = _decode(stored, scale, context.storage, context.shape, gradient.dtype)
        return gradient @ weight, None, None, None, None, None


def _encode(weight: Tensor, storage: Storage) -> tuple[Tensor, Tensor | None]:
    """weight (O, I) fp32 → what is stored, and its scales.

    bf16: (O, I), none; int8: (O, I), (O,); nf4: two to a byte, (O·I / 2, 1), and a scale per block.
    """
    if storage == "bf16":
        return weight.to(torch.bfloat16), None
    functional = _bitsandbytes(storage).functional
    if storage == "int8":
        levels, largest, _ = functional.int8_vectorwise_quant(weight.half())
        return levels, largest.flatten() / INT8_LEVELS
    packed, state = functional.quantize_4bit(weight.contiguous(), blocksize=NF4_BLOCK, quant_type="nf4")
    return packed, state.absmax


def _decode(
    stored: Tensor, scale: Tensor | None, storage: Storage, shape: tuple[int, int], dtype: torch.dtype
) -> Tensor:
    """What is stored → the weight, of shape (O, I), in dtype."""
    if scale is None:
        return stored.to(dtype)
    if storage == "int8":
        return (stored * scale[:, None]).to(dtype)
    # As one row: on the CPU bitsandbytes 0.50 takes the wrong scales where a block reaches into the next row.
    flat = (1, shape[0] * shape[1])
    return torch.ops.bitsandbytes.dequantize_4bit(stored, scale, NF4_BLOCK, "nf4", flat, dtype).view(shape)


def quiet_bitsandbytes() -> None:
    """Before bitsandbytes is imported, by us or by peft: keep it from logging that an optional kernel is absent."""
    logging.getLogger("bitsandbytes.backends").setLevel(logging.ERROR)


def _bitsandbytes(storage: Storage) -> Any:
    quiet_bitsandbytes()
    try:
        import bitsandbytes
    except ImportError as error:
        raise MissingDependency(
            f"lora.base {storage} needs the package bitsandbytes; install it (pip install bitsandbytes), "
            "or set lora.base=bf16"
        ) from error
    return bitsandbytes
