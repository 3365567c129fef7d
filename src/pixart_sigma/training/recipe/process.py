"""The tables on how any run goes: its length, its optimiser, its rate, its processes."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from pixart_sigma.training.recipe.section import Decay, Fraction, Section


class RunRecipe(Section):
    """What every kind of run shares; `batch_size` is the global one, whatever the number of processes."""

    steps: PositiveInt
    batch_size: PositiveInt
    accumulate: PositiveInt = 1
    seed: NonNegativeInt = 0
    gradient_clip: PositiveFloat = 1.0
    ema_decay: Decay = 0.999
    precision: Literal["bf16", "fp32"] = "bf16"
    compile: bool = True
    device: str = "auto"
    log_every: PositiveInt = 50
    validate_every: PositiveInt = 500
    checkpoint_every: PositiveInt = 500
    keep_last: PositiveInt = 2
    keep_every: PositiveInt | None = None
    max_skipped_steps: NonNegativeInt = 20
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ("tensorboard",)

    @model_validator(mode="after")
    def _micro_batches_are_equal(self) -> Self:
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of accumulate {self.accumulate}"
            )
        return self


class OptimizerRecipe(Section):
    """`muon`: Muon for the weights of hidden linear layers and convolutions, AdamW for the rest.

    `position_learning_rate`: of a T5's table of relative positions, whose entries are added to scores of attention and
    have to grow to several units, far beyond any weight; `learning_rate` if it is left out. Others left out: the kind's
    own default.
    """

    kind: Literal["came", "adamw", "adamw-8bit", "muon"] = "adamw"
    learning_rate: PositiveFloat = 1e-3
    matrix_learning_rate: PositiveFloat | None = None
    position_learning_rate: PositiveFloat | None = None
    betas: tuple[Decay, Decay] | tuple[Decay, Decay, Decay] | None = None
    eps: PositiveFloat | tuple[PositiveFloat, PositiveFloat] | None = None
    weight_decay: NonNegativeFloat = 0.0

    @model_validator(mode="after")
    def _keys_fit_the_kind(self) -> Self:
        if self.kind != "muon":
            self.refuse_ignored({"matrix_learning_rate"}, f"by {self.kind}")
        if self.kind not in ("muon", "adamw"):
            self.refuse_ignored({"position_learning_rate"}, f"by {self.kind}")
        wanted = 3 if self.kind == "came" else 2
        if self.betas is not None and len(self.betas) != wanted:
            raise ValueError(f"{self.kind} takes {wanted} betas, not {len(self.betas)}")
        if self.eps is not None and isinstance(self.eps, tuple) != (self.kind == "came"):
            raise ValueError(
                f"eps of {self.kind} is {'a pair of numbers' if self.kind == 'came' else 'one number'}"
            )
        return self


class RateRecipe(Section):
    """The learning rate over the run: a linear warm-up, then constant, or down to `final` of the peak.

    `reference_batch_size`: the peak is learning_rate · sqrt(batch_size / reference_batch_size).
    """

    kind: Literal["constant", "cosine", "linear"] = "constant"
    warmup_steps: NonNegativeInt = 0
    final: Fraction = 0.0
    reference_batch_size: PositiveInt | None = None

    @model_validator(mode="after")
    def _final_needs_a_descent(self) -> Self:
        if self.kind == "constant":
            self.refuse_ignored({"final"}, "with a constant rate")
        return self


class ParallelRecipe(Section):
    """How several processes share the work; `auto`: ddp. One process ignores the strategy.

    `hsdp`: sharded within groups of `shard_size` processes, replicated across them.
    """

    strategy: Literal["auto", "ddp", "fsdp", "hsdp"] = "auto"
    shard_size: PositiveInt | None = None
    activation_checkpointing: Literal["none", "selective", "full"] = "none"

    @model_validator(mode="after")
    def _shard_size_is_for_hsdp(self) -> Self:
        if self.strategy != "hsdp":
            self.refuse_ignored({"shard_size"}, f"by strategy {self.strategy}")
        elif self.shard_size is None:
            raise ValueError("strategy hsdp needs shard_size, the processes of one machine")
        return self


def check_replicated(parallel: ParallelRecipe) -> None:
    """Raises ValueError where small models, which have no blocks and are validated part by part, are to be sharded."""
    parallel.refuse_ignored({"activation_checkpointing"}, "by all but transformers")
    if parallel.strategy in ("fsdp", "hsdp"):
        raise ValueError(
            f"parallel.strategy {parallel.strategy} is for transformers; leave it out, or use ddp"
        )


def check_groups(parallel: ParallelRecipe, world: int) -> None:
    """Raises ValueError if groups of shard_size do not divide the processes."""
    if parallel.shard_size is not None and world > 1 and world % parallel.shard_size:
        raise ValueError(
            f"parallel.shard_size {parallel.shard_size} does not divide the {world} processes; use the number of one "
            "machine's"
        )


def microbatch(run: RunRecipe, world: int) -> int:
    """Samples of one process's micro-batch. Raises ValueError if the batch cannot be dealt evenly."""
    parts = world * run.accumulate
    if run.batch_size % parts:
        nearest = max(1, math.floor(run.batch_size / parts + 0.5)) * parts
        raise ValueError(
            f"run.batch_size {run.batch_size} is not a multiple of {world} processes x {run.accumulate} micro-batches; "
            f"nearest: {nearest}"
        )
    return run.batch_size // parts


class Training(Section):
    """What every kind of recipe says."""

    kind: str
    run: RunRecipe
    optimizer: OptimizerRecipe = OptimizerRecipe()
    rate: RateRecipe = RateRecipe()
    parallel: ParallelRecipe = ParallelRecipe()
