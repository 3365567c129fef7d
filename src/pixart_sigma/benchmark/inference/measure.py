"""Suites transformer, pipeline, vae and text-encoder: this package beside diffusers, on the same random weights.

Both sides run in processes of their own, in turns, A B B A, once their outputs have passed the equality gate. A row
that fails has its reason instead of figures.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from pixart_sigma.benchmark.inference.flops import useful_flops
from pixart_sigma.benchmark.inference.gate import Verdict, compare
from pixart_sigma.benchmark.inference.random_pipeline import RandomPipeline
from pixart_sigma.benchmark.inference.scenarios import Scenario, Suite, with_fewer_text_layers
from pixart_sigma.benchmark.machine import matrix_rate, memory_bytes
from pixart_sigma.benchmark.processes import Task, Worker, started, take_turns
from pixart_sigma.benchmark.ratio import ratio_of_medians
from pixart_sigma.benchmark.table import Row
from pixart_sigma.errors import MissingDependency, PixArtSigmaError
from pixart_sigma.pipeline.device import DTYPES

OURS = "ours"
THEIRS = "diffusers"
_WORKER = "pixart_sigma.benchmark.inference.worker"
_TEXT_ENCODER_SHARE = 0.5
"""Of the memory; beyond it a text encoder is cut to a quarter. On the CPU both sides share it, on a GPU they do not."""


def measure(
    suite: Suite,
    scenarios: Sequence[Scenario],
    dtypes: Sequence[str],
    device: torch.device,
    rounds: int,
    num_steps: int,
    say: Callable[[str], None],
) -> Iterator[Row]:
    """A row for each scenario in each dtype, as soon as it is there; `say` is told what is going on.

    Raises MissingDependency.
    """
    for dtype in dtypes:
        with tempfile.TemporaryDirectory() as folder:
            pipeline = RandomPipeline(Path(folder), DTYPES[dtype], device)
            for whole in scenarios:
                scenario = fitting(whole, DTYPES[dtype], device)
                say(f"{scenario.name} in {dtype}: writing weights")
                pipeline.provide(scenario)
                folders = {THEIRS: pipeline.folder, OURS: pipeline.folder}
                row = measure_row(suite, scenario, dtype, device, rounds, num_steps, folders, say)
                layers = (scenario.shapes.text_encoder.num_layers, whole.shapes.text_encoder.num_layers)
                row["text_layers"] = None if layers[0] == layers[1] else f"{layers[0]} of {layers[1]}"
                yield row


def fitting(scenario: Scenario, dtype: torch.dtype, device: torch.device) -> Scenario:
    """The scenario, with a quarter of the text encoder's layers where the memory does not hold all of them."""
    if "text_encoder" not in scenario.parts:
        return scenario
    copies = 2 if device.type == "cuda" else 1
    needed = copies * scenario.shapes.text_encoder.num_parameters * dtype.itemsize
    if needed <= _TEXT_ENCODER_SHARE * memory_bytes(device):
        return scenario
    return with_fewer_text_layers(scenario)


def measure_row(
    suite: Suite,
    scenario: Scenario,
    dtype: str,
    device: torch.device,
    rounds: int,
    num_steps: int,
    folders: Mapping[str, Path],
    say: Callable[[str], None],
) -> Row:
    """Both sides of a scenario, each with the weights in its folder. `failed` says why a row has no figures."""
    row: Row = {
        "scenario": scenario.name,
        "dtype": dtype,
        "flops": useful_flops(scenario, num_steps),
        "failed": None,
    }
    with tempfile.TemporaryDirectory() as place:
        outputs = {side: Path(place) / f"{side}.safetensors" for side in folders}
        tasks = [
            Task(
                side,
                _WORKER,
                {
                    "suite": suite,
                    "scenario": scenario.name,
                    "side": side,
                    "folder": str(folder),
                    "dtype": dtype,
                    "device": device.type,
                    "num_steps": num_steps,
                    "outputs": str(outputs[side]),
                },
            )
            for side, folder in folders.items()
        ]
        try:
            say(f"{scenario.name} in {dtype}: comparing the two sides")
            with started(tasks, Path(place)) as workers:
                verdict = compare(load_file(outputs[OURS]), load_file(outputs[THEIRS]), DTYPES[dtype])
                row["gate"] = asdict(verdict)
                if verdict.failure is not None:
                    raise PixArtSigmaError(verdict.failure)
                say(f"{scenario.name} in {dtype}: {_described(verdict)}; {rounds} rounds")
                rates = [matrix_rate(device, DTYPES[dtype])]
                take_turns(workers, rounds)
                rates.append(matrix_rate(device, DTYPES[dtype]))
        except MissingDependency:
            raise
        except PixArtSigmaError as error:
            say(f"{scenario.name} in {dtype}: failed: {error}")
            return row | {"failed": str(error)}
    sides = {worker.name: worker for worker in workers}
    return row | {
        "matrix_rate": sum(rates) / len(rates),
        "sides": {name: _figures(worker) for name, worker in sides.items()},
        "speed": asdict(ratio_of_medians(sides[THEIRS].seconds, sides[OURS].seconds)),
    }


def _figures(worker: Worker) -> dict[str, Any]:
    stages = {name: [run[name] for run in worker.runs] for name in worker.runs[0]}
    return {
        "seconds": stages.pop("total"),
        "stages": stages,
        "peak_bytes": worker.memory,
        "warm_up_seconds": worker.ready["warm_up_seconds"],
    }


def _described(verdict: Verdict) -> str:
    return "equal to " + ", ".join(f"{error:.1g} ({name})" for name, error in verdict.errors.items())
