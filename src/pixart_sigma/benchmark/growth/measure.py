"""Suites kv-compression and scaling: all ways of a scenario in processes of their own, in turns.

A way is timed once its prediction in fp32 is that of attention written plainly. A row that fails has its reason instead
of figures.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from pixart_sigma.benchmark.growth.prediction import predicted_saving
from pixart_sigma.benchmark.growth.rates import Rates, mean_rates, measured_rates
from pixart_sigma.benchmark.growth.scenarios import WAYS, Scenario, Suite, Way, config_in
from pixart_sigma.benchmark.inference.random_pipeline import RandomPipeline
from pixart_sigma.benchmark.inference.scenarios import PROMPT_TOKENS
from pixart_sigma.benchmark.outcome import Say
from pixart_sigma.benchmark.processes import Task, started, take_turns
from pixart_sigma.benchmark.table import Row
from pixart_sigma.errors import PixArtSigmaError
from pixart_sigma.pipeline.device import DTYPES
from pixart_sigma.training.plan.cost import forward_flops

_WORKER = "pixart_sigma.benchmark.growth.worker"


def measure(
    suite: Suite,
    scenarios: Sequence[Scenario],
    dtypes: Sequence[str],
    device: torch.device,
    rounds: int,
    say: Say,
) -> Iterator[Row]:
    """A row for each scenario in each dtype, as soon as it is there; `say` is told what is going on."""
    for dtype in dtypes:
        with tempfile.TemporaryDirectory() as folder:
            pipeline = RandomPipeline(Path(folder), DTYPES[dtype], device)
            for scenario in scenarios:
                say(f"{scenario.name} in {dtype}: writing weights")
                pipeline.provide(scenario.weights)
                yield measure_row(suite, scenario, dtype, device, rounds, pipeline.folder, say)


def counted(suite: Suite, scenario: Scenario, dtype: str) -> Row:
    """A row without times: tokens, and operations of each way's forward pass."""
    return {
        "scenario": scenario.name,
        "dtype": dtype,
        "size": list(scenario.size),
        "tokens": scenario.num_tokens,
        "keys": scenario.num_keys,
        "blocks": [len(scenario.compression.blocks), scenario.config.num_layers],
        "flops": {way: _flops(scenario, way) for way in WAYS[suite]},
        "failed": None,
    }


def measure_row(
    suite: Suite,
    scenario: Scenario,
    dtype: str,
    device: torch.device,
    rounds: int,
    folder: Path,
    say: Say,
) -> Row:
    """All ways of a scenario, with the weights in `folder`. `failed` says why a row has no figures."""
    row = counted(suite, scenario, dtype)
    with tempfile.TemporaryDirectory() as place:
        tasks = [_task(suite, scenario, way, dtype, device, folder) for way in WAYS[suite]]
        try:
            say(f"{scenario.name} in {dtype}: comparing with attention written plainly")
            with started(tasks, Path(place)) as workers:
                for worker in workers:
                    if worker.ready["failure"] is not None:
                        raise PixArtSigmaError(f"{worker.name}: {worker.ready['failure']}")
                say(f"{scenario.name} in {dtype}: {rounds} rounds")
                rates: list[Rates] = []
                take_turns(
                    workers, rounds, lambda: rates.append(measured_rates(scenario, DTYPES[dtype], device))
                )
        except PixArtSigmaError as error:
            say(f"{scenario.name} in {dtype}: failed: {error}")
            return row | {"failed": str(error)}
    ways = {worker.name: {"seconds": worker.seconds, "gate": worker.ready["gate"]} for worker in workers}
    for way in WAYS[suite][1:]:
        ways[way]["predicted"] = [asdict(predicted_saving(scenario, way, each)) for each in rates]
    return row | {"rates": asdict(mean_rates(rates)), "ways": ways}


def _task(suite: Suite, scenario: Scenario, way: Way, dtype: str, device: torch.device, folder: Path) -> Task:
    arguments = {
        "suite": suite,
        "scenario": scenario.name,
        "way": way,
        "dtype": dtype,
        "device": device.type,
        "folder": str(folder),
    }
    return Task(way, _WORKER, arguments)


def _flops(scenario: Scenario, way: Way) -> float:
    """Of what is timed: captions and timesteps are prepared beforehand."""
    flops = forward_flops(config_in(scenario.config, way), *scenario.size, PROMPT_TOKENS)
    return flops.total - flops.captions - flops.modulation
