"""`train RECIPE --plan`: what a run on so many GPUs takes, from plain values, as figures and as text.

Time is operations over the cards' published rate times an assumed efficiency: communication, loading and whatever
keeps a card from its published rate are in that one number. Knows nothing of recipes and files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch

from pixart_sigma.errors import InvalidInput
from pixart_sigma.model import TransformerConfig
from pixart_sigma.model.attention import writes_out
from pixart_sigma.resolution import LATENT_SCALE
from pixart_sigma.training.plan.activations import MicroBatch, Precision
from pixart_sigma.training.plan.cost import (
    CAPTION_TOKENS,
    ActivationCheckpointing,
    AutoencoderShape,
    Flops,
    LoraShape,
    StepFlops,
    T5Shape,
    adapter_shapes,
    autoencoder_flops,
    forward_flops,
    num_elements,
    parameter_shapes,
    step_flops,
    text_encoder_flops,
    token_grid,
)
from pixart_sigma.training.plan.hardware import GIB, GPU, find_gpu
from pixart_sigma.training.plan.memory import LoraBase, Memory, OptimizerKind, Sharding, rank_memory

DEFAULT_EFFICIENCY = (
    0.40  # of the published rate; a usual figure for transformers of this size, not one measured here
)
USABLE_MEMORY = (
    0.92  # of what is sold: the rest is the driver's, error correction's and the allocator's fragments
)


@dataclass(frozen=True)
class PlanInputs:
    """What the cost of a run depends on, beside the transformer; named and meant as in a recipe.

    `efficiency`: the share of the card's rate that training reaches; None: 0.40 of a published rate, all of a measured
    one. `attention_rate`: the attention kernel's rate relative to that of matrix products; None: the same, or as
    measured. `autoencoder`, `text_encoder`: given if features are computed during training rather than read.
    """

    height: int
    width: int
    batch_size: int
    steps: int
    gpus: int = 1
    gpu: str = "a100-80g"
    accumulate: int = 1
    strategy: Literal["auto", "ddp", "fsdp", "hsdp"] = "auto"
    shard_size: int | None = None
    activation_checkpointing: ActivationCheckpointing = "none"
    optimizer: OptimizerKind = "adamw"
    average: bool = True
    precision: Precision = "bf16"
    lora: LoraShape | None = None
    lora_base: LoraBase = "bf16"
    caption_tokens: int = CAPTION_TOKENS
    latent_scale: int = LATENT_SCALE
    autoencoder: AutoencoderShape | None = None
    text_encoder: T5Shape | None = None
    efficiency: float | None = None
    attention_rate: float | None = None


@dataclass(frozen=True)
class Plan:
    """`step` is per sample; `memory` is one rank's. `remedy` is None if it fits, or if nothing here would help."""

    inputs: PlanInputs
    gpu: GPU
    num_parameters: int
    num_trained: int
    forward: Flops
    step: StepFlops
    memory: Memory
    remedy: str | None
    efficiency: float
    samples_per_second: float

    @property
    def fits(self) -> bool:
        return self.memory.total <= USABLE_MEMORY * self.gpu.memory_gib * GIB

    @property
    def days(self) -> float:
        return self.inputs.steps * self.inputs.batch_size / self.samples_per_second / 86400

    @property
    def device_hours(self) -> float:
        return 24 * self.days * self.inputs.gpus


def plan(config: TransformerConfig, inputs: PlanInputs) -> Plan:
    """Work out a run.

    Raises InvalidInput for an unknown card, sizes that do not fit the model, and a batch that does not divide.
    """
    gpu = find_gpu(inputs.gpu)
    _check(inputs)
    shapes = parameter_shapes(config)
    trained = shapes if inputs.lora is None else adapter_shapes(shapes, inputs.lora)
    forward = forward_flops(
        config,
        inputs.height,
        inputs.width,
        inputs.caption_tokens,
        _micro_batch(inputs).padded_caption_tokens,
        inputs.latent_scale,
    )
    grid = token_grid(config, inputs.height, inputs.width, inputs.latent_scale)
    step = step_flops(
        config,
        forward,
        grid[0] * grid[1],
        inputs.caption_tokens,
        inputs.activation_checkpointing,
        inputs.lora,
        _encoder_flops(inputs),
    )
    memory = _memory(config, inputs)
    efficiency = inputs.efficiency or (1.0 if gpu.measured else DEFAULT_EFFICIENCY)
    room = USABLE_MEMORY * gpu.memory_gib * GIB
    return Plan(
        inputs=inputs,
        gpu=gpu,
        num_parameters=num_elements(shapes) + (0 if inputs.lora is None else num_elements(trained)),
        num_trained=num_elements(trained),
        forward=forward,
        step=step,
        memory=memory,
        remedy=None if memory.total <= room else _remedy(config, inputs, room),
        efficiency=efficiency,
        samples_per_second=_samples_per_second(inputs, gpu, efficiency, forward, step),
    )


def render(plan: Plan) -> str:
    """The plan as lines of text, without a newline at the end."""
    inputs, gpu, step = plan.inputs, plan.gpu, plan.step
    trained = "" if plan.num_trained == plan.num_parameters else f", {plan.num_trained:,} of them trained"
    batch = _micro_batch(inputs).batch_size
    micro_batches = f"{inputs.accumulate} micro-batch{'es' if inputs.accumulate > 1 else ''}"
    lines = [
        f"{inputs.width}x{inputs.height} px, captions of {inputs.caption_tokens} tokens, batch {inputs.batch_size} = "
        f"{inputs.gpus} x {gpu.name} x {micro_batches} x {batch} pictures",
        f"parameters      {plan.num_parameters:,}{trained}",
        "",
        f"GFLOP a picture, forward   {_giga(plan.forward.total)}",
        *(f"  {name:24s} {_giga(value)}" for name, value in _parts(plan.forward)),
        f"GFLOP a picture, training  {_giga(step.total)}",
        f"  {'forward':24s} {_giga(step.forward)}",
        f"  {'backward':24s} {_giga(step.backward)}",
        f"  {'computed again':24s} {_giga(step.recomputed)}",
        f"  {'encoders':24s} {_giga(step.encoders)}",
        f"GFLOP a step               {_giga(step.total * inputs.batch_size)}",
        "",
        f"GiB a rank                 {plan.memory.total / GIB:12.2f}",
        *(f"  {name:24s} {value / GIB:12.2f}" for name, value in _memory_parts(plan.memory)),
        _verdict(plan),
        "",
        f"samples/s       {plan.samples_per_second:.3g}, at {plan.efficiency:.0%} of {gpu.tflops:.3g} TFLOP/s a card",
        f"{inputs.steps:,} steps: {plan.days:.3g} days, {plan.device_hours:,.1f} device-hours",
    ]
    if gpu.note:
        lines.append(f"{gpu.name}: {gpu.note}")
    return "\n".join(lines)


def _check(inputs: PlanInputs) -> None:
    for name in ("batch_size", "steps", "gpus", "accumulate", "caption_tokens"):
        if getattr(inputs, name) < 1:
            raise InvalidInput(f"{name} is {getattr(inputs, name)}; it must be at least 1")
    if inputs.efficiency is not None and not 0 < inputs.efficiency <= 1:
        raise InvalidInput(
            f"efficiency {inputs.efficiency} is not a share; give one above 0, at most 1 (--efficiency 0.4)"
        )
    if inputs.attention_rate is not None and inputs.attention_rate <= 0:
        raise InvalidInput(f"attention_rate {inputs.attention_rate} is not positive; 1 is the matrix rate")
    parts = inputs.gpus * inputs.accumulate
    if inputs.batch_size % parts:
        raise InvalidInput(
            f"batch_size {inputs.batch_size} is not a multiple of {inputs.gpus} GPUs x {inputs.accumulate} "
            f"micro-batches; nearest: {max(1, round(inputs.batch_size / parts)) * parts} (run.batch_size)"
        )


def _micro_batch(inputs: PlanInputs) -> MicroBatch:
    size = inputs.batch_size // (inputs.gpus * inputs.accumulate)
    return MicroBatch(size, inputs.height, inputs.width, inputs.caption_tokens)


def _encoder_flops(inputs: PlanInputs) -> float:
    total = 0.0
    if inputs.autoencoder is not None:
        total += autoencoder_flops(inputs.autoencoder, inputs.height, inputs.width)
    if inputs.text_encoder is not None:
        total += text_encoder_flops(inputs.text_encoder, inputs.caption_tokens)
    return total


def _memory(config: TransformerConfig, inputs: PlanInputs) -> Memory:
    if inputs.gpus == 1:
        sharding = Sharding()
    else:
        # As the trainer reads "auto".
        strategy = "ddp" if inputs.strategy == "auto" else inputs.strategy
        sharding = Sharding(strategy, inputs.gpus, inputs.shard_size)
    batch = _micro_batch(inputs)
    rows, columns = token_grid(config, batch.height, batch.width, inputs.latent_scale)
    dtype = torch.bfloat16 if inputs.precision == "bf16" else torch.float32
    plain = writes_out("cpu" if inputs.gpu == "cpu" else "cuda", rows * columns, dtype)
    return rank_memory(
        config,
        batch,
        inputs.latent_scale,
        sharding,
        inputs.optimizer,
        inputs.average,
        inputs.precision,
        inputs.activation_checkpointing,
        inputs.lora,
        inputs.lora_base,
        inputs.autoencoder,
        inputs.text_encoder,
        "plain" if plain else "fused",
    )


def _samples_per_second(
    inputs: PlanInputs, gpu: GPU, efficiency: float, forward: Flops, step: StepFlops
) -> float:
    rate = inputs.attention_rate or gpu.attention_rate
    # Forward, backward (two products of scores for one) and, under full checkpointing, forward again.
    attention = (4 if step.recomputed else 3) * forward.attention
    return inputs.gpus * gpu.tflops * 1e12 * efficiency / (step.total + (1 / rate - 1) * attention)


def _remedy(config: TransformerConfig, inputs: PlanInputs, room: float) -> str | None:
    """The first change of the recipe, cheapest in time first, that makes it fit."""
    for change, changed in _changes(inputs):
        if _memory(config, changed).total <= room:
            return change
    return None


def _changes(inputs: PlanInputs) -> Iterator[tuple[str, PlanInputs]]:
    size = _micro_batch(inputs).batch_size
    divisors = [count for count in range(2, size + 1) if size % count == 0]
    sharded: list[tuple[str, PlanInputs]] = [("", inputs)]
    if inputs.gpus > 1 and inputs.strategy in ("auto", "ddp"):
        sharded.append(("parallel.strategy=fsdp", replace(inputs, strategy="fsdp")))
    for strategy, start in sharded:
        if strategy:
            yield strategy, start
        for count in divisors:
            accumulate = inputs.accumulate * count
            yield _joined(strategy, f"run.accumulate={accumulate}"), replace(start, accumulate=accumulate)
    for strategy, start in sharded:
        for kind in ("selective", "full"):
            if inputs.activation_checkpointing == "full" or kind == inputs.activation_checkpointing:
                continue
            again = replace(start, activation_checkpointing=kind)
            change = _joined(strategy, f"parallel.activation_checkpointing={kind}")
            yield change, again
            for count in divisors:
                accumulate = inputs.accumulate * count
                yield f"{change} run.accumulate={accumulate}", replace(again, accumulate=accumulate)


def _joined(*changes: str) -> str:
    return " ".join(change for change in changes if change)


def _verdict(plan: Plan) -> str:
    room = f"{USABLE_MEMORY:.0%} of {plan.gpu.memory_gib:.0f} GiB"
    if plan.fits:
        return f"fits in {room}"
    if plan.remedy is None:
        return f"does not fit in {room}; take a larger card, or lower the resolution"
    return f"does not fit in {room}; try --set {plan.remedy.replace(' ', ' --set ')}"


def _parts(flops: Flops) -> list[tuple[str, float]]:
    return [
        ("patches", flops.patches),
        ("captions, cross K and V", flops.captions),
        ("modulation", flops.modulation),
        ("self-attention products", flops.self_projections),
        ("self-attention scores", flops.self_scores),
        ("cross-attention", flops.cross_projections + flops.cross_scores),
        ("MLP", flops.mlp),
        ("output", flops.output),
    ]


def _memory_parts(memory: Memory) -> list[tuple[str, float]]:
    return [
        ("parameters", memory.parameters),
        ("gradients", memory.gradients),
        ("optimiser", memory.optimizer),
        ("moving average", memory.average),
        ("copies of weights", memory.copies),
        ("activations", memory.activations),
        ("encoders", memory.encoders),
        ("workspace", memory.workspace),
    ]


def _giga(flops: float) -> str:
    return f"{flops / 1e9:12,.2f}"
