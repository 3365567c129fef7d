from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from comparison import relative_error
from pixart_sigma.errors import RecipeError
from pixart_sigma.pipeline.placement.processes import Processes
from pixart_sigma.training.parallel import Parallel, parallelise
from ranks import run_ranks
from tiny_objective import Objective, batch_of, recipes

Case = tuple[str, int, dict[str, Any]]  # strategy, accumulate, other options

BATCH_SIZE = 8


def here() -> Processes:
    started = dist.is_initialized()
    rank, world = (dist.get_rank(), dist.get_world_size()) if started else (0, 1)
    return Processes(rank, world, rank, torch.device("cpu"))


def curve(parallel: Parallel, accumulate: int, num_steps: int) -> tuple[list[float], list[float]]:
    """Losses and gradient norms of steps of AdamW, over slices of batches as the loop makes them."""
    processes = parallel.processes
    # A bias of keys has no gradient but rounding errors, which a small epsilon would scale up to whole steps.
    optimizer = torch.optim.AdamW(parallel.inner.parameters(), lr=2e-3, eps=1e-4)
    micro = BATCH_SIZE // processes.world // accumulate
    losses, norms = [], []
    for step in range(num_steps):
        total = 0.0
        for index in range(accumulate):
            first = (processes.rank * accumulate + index) * micro
            part = slice(first, first + micro)
            with parallel.gradients_summed(last=index == accumulate - 1):
                loss = parallel.model(batch_of(step, BATCH_SIZE, part, processes.world / BATCH_SIZE))["loss"]
                loss.backward()
            if index < accumulate - 1:
                assert not exchanged(parallel)
            total += float(loss.detach()) / processes.world
        norms.append(float(parallel.clip(1.0)))
        optimizer.step()
        optimizer.zero_grad()
        losses.append(processes.summed([total])[0])
    return losses, norms


def exchanged(parallel: Parallel) -> bool:
    """Whether this process's gradients are everybody's."""
    weight = parallel.inner.transformer.proj_out.weight
    if isinstance(weight, DTensor):
        return weight.grad is not None
    norms = parallel.processes.gathered(float(weight.grad.norm()))
    return norms == [norms[0]] * len(norms)


def train(cases: list[Case], num_steps: int) -> Any:
    results = []
    for strategy, accumulate, options in cases:
        model = Objective()
        parallel = parallelise(model, model.blocks(), *recipes(strategy, **options), here())
        names = [name for name, _ in model.named_parameters()]
        sharded = {isinstance(weight, DTensor) for weight in model.parameters()}
        results.append((*curve(parallel, accumulate, num_steps), parallel.whole_weights(), names, sharded))
    return results


@pytest.mark.parametrize(
    ("world", "num_steps", "cases"),
    [
        (
            2,
            50,
            [
                ("auto", 1, {}),
                ("ddp", 2, {"activation_checkpointing": "full"}),
                ("fsdp", 1, {}),
                ("fsdp", 2, {"activation_checkpointing": "selective"}),
            ],
        ),
        (4, 15, [("hsdp", 2, {"shard_size": 2})]),
    ],
)
def test_processes_learn_what_one_learns(world: int, num_steps: int, cases: list[Case]) -> None:
    [(losses, norms, weights, names, _)] = train([("auto", 1, {})], num_steps)
    assert losses[-1] < losses[0]
    for rank, results in enumerate(run_ranks(world, train, cases, num_steps)):
        for case, (its_losses, its_norms, its_weights, its_names, sharded) in zip(
            cases, results, strict=True
        ):
            assert sharded == {case[0] in ("fsdp", "hsdp")}
            assert its_names == names
            assert its_losses == pytest.approx(losses, rel=1e-5)
            assert its_norms == pytest.approx(norms, rel=1e-4)
            assert its_weights.keys() == (weights.keys() if rank == 0 else set())
            for name, weight in its_weights.items():
                assert relative_error(weight, weights[name]) < 1e-5, (case, name)


def test_one_process_needs_no_strategy() -> None:
    model = Objective()
    parallel = parallelise(model, model.blocks(), *recipes("fsdp"), here())
    assert parallel.model is model
    whole = parallel.whole_weights()
    before = whole["transformer.proj_out.bias"].clone()
    model.transformer.proj_out.bias.data.add_(1)
    assert torch.equal(whole["transformer.proj_out.bias"], before)  # a copy


def sharded_in_fp32_and_bf16() -> tuple[Any, Any]:
    return sampled_with_other_weights(), dtypes_in_bf16()


@pytest.fixture(scope="module")
def sharded() -> list[tuple[Any, Any]]:
    return run_ranks(2, sharded_in_fp32_and_bf16)


def sampled_with_other_weights() -> list[Tensor]:
    """Samples before and after the weights change, without a training step between them."""
    model = Objective()
    parallel = parallelise(model, model.blocks(), *recipes("fsdp"), here(), methods=["sample"])
    batch = batch_of(0, BATCH_SIZE)
    samples = []
    weights = list(model.parameters())  # as a moving average or an optimiser holds them
    with torch.no_grad():
        for _ in range(2):
            samples.append(parallel.inner.sample(batch))
            for weight in weights:
                weight.mul_(0.5)
    return samples


def test_a_sharded_model_samples_with_the_weights_of_the_moment(sharded: list[Any]) -> None:
    model = Objective()
    batch = batch_of(0, BATCH_SIZE)
    with torch.no_grad():
        before = model.sample(batch)
        for weight in model.parameters():
            weight.mul_(0.5)
        after = model.sample(batch)
    for samples, _ in sharded:
        assert relative_error(samples[0], before) < 1e-5
        assert relative_error(samples[1], after) < 1e-5


def dtypes_in_bf16() -> tuple[set[torch.dtype], set[torch.dtype], set[torch.dtype], float]:
    model = Objective()
    parallel = parallelise(model, model.blocks(), *recipes("fsdp", precision="bf16"), here())
    computed, inputs = set(), set()
    model.blocks()[0].attn1.register_forward_pre_hook(
        lambda attention, arguments: computed.add(attention.to_q.weight.dtype)
    )
    model.transformer.adaln_single.register_forward_pre_hook(
        lambda module, arguments: inputs.add(arguments[0].dtype)
    )
    with torch.autocast("cpu", torch.bfloat16):
        loss = parallel.model(batch_of(0, BATCH_SIZE))["loss"]
    loss.backward()
    kept = {tensor.dtype for weight in model.parameters() for tensor in (weight, weight.grad)}
    return computed, inputs, kept, float(loss.detach())


def test_bf16_is_for_computing_only(sharded: list[Any]) -> None:
    expected = float(Objective()(batch_of(0, BATCH_SIZE))["loss"].detach())
    for _, (computed, inputs, kept, loss) in sharded:
        assert computed == {torch.bfloat16}
        assert inputs == {torch.float32}  # timesteps
        assert kept == {torch.float32}
        assert loss == pytest.approx(expected, rel=1e-2)


def test_groups_that_do_not_divide_the_processes_are_refused() -> None:
    model = Objective()
    processes = Processes(0, 4, 0, torch.device("cpu"))
    with pytest.raises(RecipeError, match="shard_size 3 does not divide the 4 processes"):
        parallelise(model, model.blocks(), *recipes("hsdp", shard_size=3), processes)
