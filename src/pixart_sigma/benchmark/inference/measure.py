"""Suites transformer, pipeline, vae and text-encoder: this package beside diffusers, on the same random weights.

Both sides run in processes of their own, in turns, A B B A, once their outputs have passed the equality gate. A row
that fails has its reason instead of figures. Compiled sides have rows of their own: they never run beside eager ones.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from pixart_sigma.benchmark.inference.flops import useful_flops
from pixart_sigma.benchmark.inference.gate import Verdict, compare
from pixart_sigma.benchmark.inference.random_pipeline import RandomPipeline
from pixart_sigma.benchmark.inference.scenarios import Scenario, Suite, with_fewer_text_layers
from pixart_sigma.benchmark.inference.tasks import OURS, THEIRS, Setting, Side
from pixart_sigma.benchmark.machine import matrix_rate, memory_bytes
from pixart_sigma.benchmark.outcome import Say
from pixart_sigma.benchmark.processes import Worker, started, take_turns
from pixart_sigma.benchmark.ratio import ratio_of_medians
from pixart_sigma.benchmark.table import Row
from pixart_sigma.errors import MissingDependency, PixArtSigmaError
from pixart_sigma.pipeline.device import DTYPES

_TEXT_ENCODER_SHARE = 0.5
"""Of the memory; beyond it a text encoder is cut to a quarter. On the CPU both sides share it, on a GPU they do not."""


def measure(
    suite: Suite,
    scenarios: Sequence[Scenario],
    dtypes: Sequence[str],
    device: torch.device,
    rounds: int,
    num_steps: int,
    compiled: bool,
    say: Say,
) -> Iterator[Row]:
    """A row for each scenario in each dtype, as soon as it is there; `say` is told what is going on.

    compiled: one more row for each, with both sides compiled. Raises MissingDependency.
    """
    for scenario, dtype, folder, text_layers in provided(scenarios, dtypes, device, say):
        setting = Setting(suite, scenario, dtype, device, num_steps)
        folders: dict[Side, Path] = {THEIRS: folder, OURS: folder}
        for compiles in (False, True) if compiled else (False,):
            yield measure_row(setting, rounds, folders, say, compiled=compiles) | {"text_layers": text_layers}


def provided(
    scenarios: Sequence[Scenario], dtypes: Sequence[str], device: torch.device, say: Say
) -> Iterator[tuple[Scenario, str, Path, str | None]]:
    """Each scenario in each dtype, the folder that has its weights while it is looked at, and what was left out."""
    for dtype in dtypes:
        with tempfile.TemporaryDirectory() as folder:
            pipeline = RandomPipeline(Path(folder), DTYPES[dtype], device)
            for whole in scenarios:
                scenario = fitting(whole, DTYPES[dtype], device)
                say(f"{scenario.name} in {dtype}: writing weights")
                pipeline.provide(scenario)
                layers = (scenario.shapes.text_encoder.num_layers, whole.shapes.text_encoder.num_layers)
                cut = None if layers[0] == layers[1] else f"{layers[0]} of {layers[1]}"
                yield scenario, dtype, pipeline.folder, cut


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
    setting: Setting, rounds: int, folders: Mapping[Side, Path], say: Say, *, compiled: bool = False
) -> Row:
    """Both sides of a scenario, each with the weights in its folder. `failed` says why a row has no figures."""
    dtype = DTYPES[setting.dtype]
    row: Row = {
        "scenario": setting.scenario.name,
        "dtype": setting.dtype,
        "mode": "compiled" if compiled else "eager",
        "flops": useful_flops(setting.scenario, setting.num_steps),
        "failed": None,
    }
    named = f"{setting.scenario.name} in {setting.dtype}{', compiled' if compiled else ''}"
    with tempfile.TemporaryDirectory() as place:
        outputs = {side: Path(place) / f"{side}.safetensors" for side in folders}
        caches = {side: Path(place) / f"{side}-compiled" if compiled else None for side in folders}
        tasks = [
            setting.task(side, side, folder, outputs[side], compiled_in=caches[side])
            for side, folder in folders.items()
        ]
        compile_seconds: dict[str, float] = {}
        try:
            if compiled:
                say(f"{named}: compiling, each side in a process that ends")
                for task in tasks:
                    with started([task], Path(place)) as (worker,):
                        compile_seconds[task.name] = worker.ready["warm_up_seconds"]
            say(f"{named}: comparing the two sides")
            with started(tasks, Path(place)) as workers:
                verdict = compare(load_file(outputs[OURS]), load_file(outputs[THEIRS]), dtype)
                row["gate"] = asdict(verdict)
                if verdict.failure is not None:
                    raise PixArtSigmaError(verdict.failure)
                say(f"{named}: {described(verdict)}; {rounds} rounds")
                rates = [matrix_rate(setting.device, dtype)]
                take_turns(workers, rounds)
                rates.append(matrix_rate(setting.device, dtype))
        except MissingDependency:
            raise
        except PixArtSigmaError as error:
            say(f"{named}: failed: {error}")
            return row | {"failed": str(error)}
    sides = {worker.name: worker for worker in workers}
    return row | {
        "matrix_rate": sum(rates) / len(rates),
        "sides": {name: _figures(worker, compile_seconds.get(name)) for name, worker in sides.items()},
        "speed": asdict(ratio_of_medians(sides[THEIRS].seconds, sides[OURS].seconds)),
    }


def described(verdict: Verdict) -> str:
    """For whoever waits."""
    return "equal to " + ", ".join(f"{error:.1g} ({name})" for name, error in verdict.errors.items())


def _figures(worker: Worker, first_compile_seconds: float | None) -> dict[str, Any]:
    """first_compile_seconds: the first run with an empty cache; None for eager."""
    stages = {name: [run[name] for run in worker.runs] for name in worker.runs[0]}
    warm_up = worker.ready["warm_up_seconds"]
    compiling = (
        {} if first_compile_seconds is None else {"empty_cache_warm_up_seconds": first_compile_seconds}
    )
    return {
        "seconds": stages.pop("total"),
        "stages": stages,
        "peak_bytes": worker.memory,
        "warm_up_seconds": warm_up,
        **compiling,
    }
