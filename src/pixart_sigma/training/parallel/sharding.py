"""A model shared out over processes: replicated (ddp), sharded (fsdp), or sharded in groups that are replicas (hsdp).

torch does it; this says with which settings, and gives the loop one object for all of them. The processes must
begin with the same weights. The loss each process gives is such that their mean is the loss of the whole batch.
Knows nothing of optimisers: they are made afterwards, over `model.parameters()`, which sharding replaces.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from pixart_sigma.errors import RecipeError
from pixart_sigma.model.compilation import compile_blocks
from pixart_sigma.model.kv_compression import KVCompressor
from pixart_sigma.pipeline.compiler import check_compiler
from pixart_sigma.pipeline.placement.processes import Processes
from pixart_sigma.training.parallel.activations import recompute_activations
from pixart_sigma.training.recipe.process import ParallelRecipe, RunRecipe

# What a transformer block computes with its weights outside of `forward`.
_BLOCK_METHODS = ("modulation", "caption_keys_and_values")


@dataclass(frozen=True)
class Parallel:
    """A model at work on every process.

    `model(batch)` is what training calls, for gradients to be exchanged. `inner` is the model as it was given, with
    its own methods and parameter names, which optimisers, averages and checkpoints use.
    """

    model: nn.Module
    inner: nn.Module
    processes: Processes

    @contextmanager
    def gradients_summed(self, last: bool) -> Iterator[None]:
        """Around the forward and backward pass of a micro-batch; gradients are exchanged in the `last` alone."""
        if isinstance(self.model, DistributedDataParallel) and not last:
            with self.model.no_sync():
                yield
            return
        if isinstance(self.model, FSDPModule):
            self.model.set_requires_gradient_sync(last)
        yield

    def clip(self, max_norm: float) -> Tensor:
        """Scale the gradients of the whole model to a norm of at most `max_norm`; returns the norm before, ()."""
        trained = [weight for weight in self.inner.parameters() if weight.requires_grad]
        norm = nn.utils.clip_grad_norm_(trained, max_norm, foreach=True)
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    def whole_weights(self) -> dict[str, Tensor]:
        """A copy of the model's state on the CPU, for the first process; the others help and get none of it."""
        whole = {}
        for name, tensor in self.inner.state_dict().items():
            tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            if self.processes.first:
                whole[name] = tensor.detach().to("cpu", copy=True)
        return whole


def parallelise(
    model: nn.Module,
    blocks: Sequence[nn.Module],
    recipe: ParallelRecipe,
    run: RunRecipe,
    processes: Processes,
    methods: Sequence[str] = (),
) -> Parallel:
    """Put `model`, on the processes' device, to work as the recipe says; changes it in place.

    blocks: parts of the model that are sharded, recomputed and compiled each by itself; the rest is one more shard.
    methods: the model's methods, beside `forward`, that compute with its weights (sampling, say). A sharded model
    can be computed with by these and by `forward` alone, on all processes at once. One process ignores the strategy.
    Sharded weights are fp32; with precision bf16 they are gathered as bf16, and gradients are added up in fp32.
    Raises RecipeError if groups of shard_size do not divide the processes.
    """
    recompute_activations(blocks, recipe.activation_checkpointing)
    if run.compile and blocks:
        # DDP would cut the graphs at its buckets, and cannot cut those that recompute; a graph a block is fine enough.
        torch._dynamo.config.optimize_ddp = False
        check_compiler()
        compile_blocks(blocks)
    if processes.world == 1:
        return Parallel(model, model, processes)
    if recipe.strategy in ("auto", "ddp"):
        devices = [processes.device] if processes.device.type == "cuda" else None
        replicated = DistributedDataParallel(
            model,
            device_ids=devices,
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
            # A batch of small pictures leaves a compressor unused that is for large ones.
            find_unused_parameters=any(
                isinstance(module, KVCompressor) and module.config.from_tokens for module in model.modules()
            ),
        )
        return Parallel(replicated, model, processes)
    shard(model, blocks, _mesh(recipe, processes), run.precision, methods)
    return Parallel(model, model, processes)


def shard(
    model: nn.Module, blocks: Sequence[nn.Module], mesh: DeviceMesh, precision: str, methods: Sequence[str]
) -> None:
    """FSDP2 over the blocks and the rest of the model, in place; arguments as for `parallelise`."""
    settings: dict[str, Any] = {
        "mesh": mesh,
        # Inputs stay as they are: a timestep in bf16 would be another one. Autocast casts what it should.
        "mp_policy": MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if precision == "bf16" else None,
            reduce_dtype=torch.float32,
            cast_forward_inputs=False,
        ),
        # By default the root would stay gathered after a validation, and not see the weights change after it.
        "reshard_after_forward": True,
    }
    for block in blocks:
        fully_shard(block, **settings)
        for name in _BLOCK_METHODS:
            if hasattr(block, name):
                register_fsdp_forward_method(block, name)
    fully_shard(model, **settings)
    for name in methods:
        register_fsdp_forward_method(model, name)


def _mesh(recipe: ParallelRecipe, processes: Processes) -> DeviceMesh:
    kind, world = processes.device.type, processes.world
    if recipe.strategy == "fsdp":
        return init_device_mesh(kind, (world,), mesh_dim_names=("shard",))
    size = recipe.shard_size or world
    if world % size:
        raise RecipeError(
            f"parallel.shard_size {size} does not divide the {world} processes; use the number of one machine's"
        )
    # Neighbouring ranks share a machine, so that weights are gathered within it and gradients alone leave it.
    return init_device_mesh(kind, (world // size, size), mesh_dim_names=("replicate", "shard"))
