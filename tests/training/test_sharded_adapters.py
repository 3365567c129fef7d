"""Adapters over processes: the same losses and the same file as on one, whatever the base and the strategy."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from comparison import relative_error
from pixart_sigma.pipeline.placement.processes import Processes
from pixart_sigma.training.adapters import adapter_state_dict, inject
from pixart_sigma.training.parallel import parallelise
from pixart_sigma.training.recipe.transformer import LoraRecipe
from ranks import run_ranks
from tiny_objective import Objective, batch_of, recipes

BATCH_SIZE = 4


def train(strategy: str, cases: list[tuple[str, bool]]) -> list[tuple[list[float], dict[str, Tensor]]]:
    started = dist.is_initialized()
    rank, world = (dist.get_rank(), dist.get_world_size()) if started else (0, 1)
    processes = Processes(rank, world, rank, torch.device("cpu"))
    size = BATCH_SIZE // world
    part = slice(rank * size, (rank + 1) * size)
    results = []
    for base, dora in cases:
        model = Objective()
        inject(model.transformer, LoraRecipe(rank=2, base=base, dora=dora), seed=0)
        parallel = parallelise(model, model.blocks(), *recipes(strategy), processes)
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=5e-3, eps=1e-4)
        losses = []
        for step in range(3):
            loss = parallel.model(batch_of(step, BATCH_SIZE, part, world / BATCH_SIZE))["loss"]
            loss.backward()
            parallel.clip(1.0)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(processes.summed([float(loss.detach()) / world])[0])
        whole = parallel.whole_weights()
        results.append((losses, adapter_state_dict(whole) if whole else {}))
    return results


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_train_as_one(strategy: str) -> None:
    cases = [("fp32", False), ("nf4", True), ("int8", False), ("bf16", True)]
    alone = train(strategy, cases)
    first, second = run_ranks(2, train, strategy, cases)
    for (losses, adapters), (together, gathered), (other, nothing) in zip(alone, first, second, strict=True):
        assert together == other == pytest.approx(losses, rel=1e-5)
        assert nothing == {}
        assert gathered.keys() == adapters.keys()
        for name, tensor in adapters.items():
            assert relative_error(gathered[name], tensor) <= 1e-3, name
