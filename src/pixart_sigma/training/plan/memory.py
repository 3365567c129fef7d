"""What a rank's memory holds while it trains, by part, in bytes.

Gradients and activations are added up, although in a step without accumulation the one grows as the other shrinks.
Counts what stays and what a step needs at its peak; not the allocator's fragments, for which `report.py` leaves room.
Knows nothing of cards and of time.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import torch

from pixart_sigma.errors import InvalidInput
from pixart_sigma.model import TransformerConfig
from pixart_sigma.training.plan.activations import AttentionKernel, MicroBatch, Precision, activations
from pixart_sigma.training.plan.cost import (
    ActivationCheckpointing,
    AutoencoderShape,
    LoraShape,
    Shapes,
    T5Shape,
    adapter_shapes,
    num_elements,
    parameter_shapes,
)

OptimizerKind = Literal["came", "adamw", "adamw-8bit", "muon"]
Strategy = Literal["single", "ddp", "fsdp", "hsdp"]
LoraBase = Literal["fp32", "bf16", "int8", "nf4"]

_FP32 = 4
_BF16 = 2
_8BIT_BLOCK = 256  # elements that share a scale in bitsandbytes' 8-bit optimisers
_8BIT_SMALLEST = 4096  # smaller weights keep fp32 state there
_NF4_BLOCK = 64  # elements that share a scale in bitsandbytes' 4-bit weights
_WORKSPACE = 2**30  # the CUDA context with cuBLAS's and NCCL's buffers: of this order, not measured here


@dataclass(frozen=True)
class Memory:
    """Bytes on one rank. `copies`: weights as the matrix products read them, and gradients on their way to a shard."""

    parameters: float
    gradients: float
    optimizer: float
    average: float
    copies: float
    activations: float
    encoders: float
    workspace: float

    @property
    def total(self) -> float:
        return float(sum(getattr(self, field.name) for field in fields(self)))


@dataclass(frozen=True)
class Sharding:
    """How weights lie on `ranks`; `shard_size` is for hsdp alone."""

    strategy: Strategy = "single"
    ranks: int = 1
    shard_size: int | None = None

    @property
    def shards(self) -> int:
        """Over how many ranks one copy of the weights is spread. Raises InvalidInput for an hsdp that does not fit."""
        if self.strategy == "fsdp":
            return self.ranks
        if self.strategy == "hsdp":
            if not self.shard_size or self.ranks % self.shard_size:
                raise InvalidInput(
                    f"parallel.shard_size {self.shard_size} does not divide {self.ranks} ranks; use a machine's number"
                )
            return self.shard_size
        return 1


def rank_memory(
    config: TransformerConfig,
    batch: MicroBatch,
    latent_scale: int,
    sharding: Sharding,
    optimizer: OptimizerKind = "adamw",
    average: bool = True,
    precision: Precision = "bf16",
    checkpointing: ActivationCheckpointing = "none",
    lora: LoraShape | None = None,
    lora_base: LoraBase = "bf16",
    autoencoder: AutoencoderShape | None = None,
    text_encoder: T5Shape | None = None,
    kernel: AttentionKernel = "fused",
) -> Memory:
    """The memory of one rank; weights, their gradients, averages and optimiser state are fp32.

    autoencoder, text_encoder: given if they run during training; they are frozen, bf16, and whole on every rank.
    """
    shapes = parameter_shapes(config)
    trained = shapes if lora is None else adapter_shapes(shapes, lora)
    shards = sharding.shards
    num_trained = num_elements(trained)
    frozen = 0.0 if lora is None else frozen_bytes(shapes, lora_base)
    element = _BF16 if precision == "bf16" else _FP32
    kept = activations(config, batch, latent_scale, precision, checkpointing, kernel)
    copies = _copies(shapes, trained, sharding, element, lora is not None, lora_base)
    if checkpointing != "none" and shards == 1:
        # Blocks that are computed again cast their weights again: the copies go when the forward pass ends, before
        # the working memory of the backward pass is there, but for one block's.
        copies = max(copies / config.num_layers, copies - kept.working)
    return Memory(
        parameters=(frozen + _FP32 * num_trained) / shards,
        gradients=_FP32 * num_trained / shards,
        optimizer=optimizer_bytes(optimizer, trained) / shards,
        average=_FP32 * num_trained / shards if average else 0.0,
        copies=copies,
        activations=kept.total,
        encoders=_encoders(batch, autoencoder, text_encoder),
        workspace=_WORKSPACE,
    )


def optimizer_bytes(kind: OptimizerKind, shapes: Shapes) -> float:
    """The optimiser's state over weights of these shapes, on one rank that holds all of them."""
    if kind == "came":
        return float(sum(_came(shape) for shape in shapes.values()))
    if kind == "adamw-8bit":
        return float(sum(_adamw_8bit(torch.Size(shape).numel()) for shape in shapes.values()))
    moments = {
        name: 1 if kind == "muon" and is_hidden_matrix(name, shape) else 2 for name, shape in shapes.items()
    }
    return float(sum(moments[name] * _FP32 * torch.Size(shape).numel() for name, shape in shapes.items()))


def is_hidden_matrix(name: str, shape: tuple[int, ...]) -> bool:
    """Whether muon updates this weight: a matrix inside a block."""
    return len(shape) == 2 and name.startswith("transformer_blocks.") and _is_product(name)


def frozen_bytes(shapes: Shapes, base: LoraBase) -> float:
    """A frozen transformer as it is stored. int8 and nf4 are for linear layers; the rest of the weights is bf16."""
    total = 0.0
    for name, shape in shapes.items():
        elements = torch.Size(shape).numel()
        if base in ("fp32", "bf16"):
            total += elements * (_FP32 if base == "fp32" else _BF16)
        elif len(shape) != 2 or not _is_product(name):
            total += elements * _BF16
        elif base == "int8":
            total += elements + _FP32 * shape[0]
        else:
            total += elements / 2 + _FP32 * elements / _NF4_BLOCK
    return total


def _came(shape: tuple[int, ...]) -> int:
    elements = torch.Size(shape).numel()
    if len(shape) < 2:
        return 2 * _FP32 * elements
    rows, columns = elements // shape[-1], elements // shape[-2]
    return _FP32 * (elements + 2 * (rows + columns))


def _adamw_8bit(elements: int) -> int:
    if elements < _8BIT_SMALLEST:
        return 2 * _FP32 * elements
    return 2 * (elements + _FP32 * -(-elements // _8BIT_BLOCK))


def _is_product(name: str) -> bool:
    return name.endswith(".weight")


def _copies(
    shapes: Shapes, trained: Shapes, sharding: Sharding, element: int, frozen: bool, base: LoraBase
) -> float:
    """Autocast's bf16 copies of all matrices; sharded, two blocks and the rest at a time, and a block's gradients."""
    blocks: dict[str, int] = {}
    rest = 0
    for name, shape in shapes.items():
        if name.startswith("transformer_blocks."):
            index = name.split(".")[1]
            blocks[index] = blocks.get(index, 0) + torch.Size(shape).numel()
        else:
            rest += torch.Size(shape).numel()
    largest = max(blocks.values())
    if sharding.shards > 1:
        gathered = element * (2 * largest + rest)
        # In the weights' dtype as they come from the backward pass, and in fp32 to be added up.
        gradients = 0 if frozen else (element + _FP32) * largest
        return float(gathered + gradients)
    if element == _FP32 or (frozen and base != "fp32"):
        # int8 and nf4 are unpacked one matrix at a time.
        widest = max(torch.Size(shape).numel() for shape in shapes.values())
        return float(_BF16 * widest if frozen and base in ("int8", "nf4") else 0)
    both = shapes | trained
    return float(_BF16 * num_elements({name: shape for name, shape in both.items() if len(shape) > 1}))


def _encoders(batch: MicroBatch, autoencoder: AutoencoderShape | None, text_encoder: T5Shape | None) -> float:
    total = 0.0
    if text_encoder is not None:
        total += _BF16 * text_encoder.num_parameters
    if autoencoder is not None:
        # At the first level a residual block holds its input, its two intermediate results and a copy: one picture at
        # a time. The encoder's weights, some 34 M, are little beside them.
        total += 4 * _FP32 * autoencoder.channels[0] * batch.height * batch.width
    return total
