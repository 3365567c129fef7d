"""Suite memory: the most memory of a process for each way of each scenario, beside the plan's prediction.

Every way has a process of its own and runs once. Memory on the CPU is anonymous memory (RssAnon), looked at every few
milliseconds, with the resident set, mapped files included, beside it; on a GPU it is what torch counts, and the
resident set beside it is the host's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from pixart_sigma.benchmark.inference.random_pipeline import RandomPipeline
from pixart_sigma.benchmark.memory.scenarios import Scenario
from pixart_sigma.benchmark.processes import Task, Worker, started
from pixart_sigma.benchmark.table import Row
from pixart_sigma.encoders.text_holds import missing_package
from pixart_sigma.errors import PixArtSigmaError
from pixart_sigma.pipeline.device import DTYPES
from pixart_sigma.pipeline.memory.limit import MIB

_WORKER = "pixart_sigma.benchmark.memory.worker"


def measure_memory(
    scenarios: Sequence[Scenario], device: torch.device, num_steps: int, say: Callable[[str], None]
) -> Iterator[Row]:
    """A row for each way, as soon as it is there; one that fails says why in its last column."""
    for scenario in scenarios:
        with tempfile.TemporaryDirectory() as place:
            folder = None
            if scenario.weights is not None:
                say(f"{scenario.name}: writing weights")
                folder = Path(place) / "pipeline"
                folder.mkdir()
                RandomPipeline(folder, DTYPES[scenario.dtype], device).provide(scenario.weights)
            first: dict[str, Tensor] | None = None
            for number, way in enumerate(scenario.ways):
                say(f"{scenario.name}: {way.name}")
                outputs = Path(place) / f"{number}.safetensors"
                arguments = {
                    "scenario": scenario.name,
                    "way": way.name,
                    "folder": str(folder) if folder else None,
                    "device": device.type,
                    "num_steps": num_steps,
                    "outputs": str(outputs),
                }
                row: Row = {
                    "scenario": scenario.name,
                    "dtype": scenario.dtype,
                    "way": way.name,
                    "exact": way.exact,
                }
                package = missing_package(way.text_hold) if way.text_hold is not None else None
                if package is not None:
                    yield (
                        row | _figures(None, device) | {"difference": f"not run: {package} is not installed"}
                    )
                    continue
                try:
                    worker = _run(Task(way.name, _WORKER, arguments), Path(place))
                except PixArtSigmaError as error:
                    yield row | _figures(None, device) | {"difference": f"failed: {error}"}
                    continue
                found = load_file(outputs)
                difference = None if first is None else _difference(found, first)
                first = found if first is None else first
                yield row | _figures(worker, device) | {"difference": difference}


def _run(task: Task, place: Path) -> Worker:
    with started([task], place) as (worker,):
        worker.take(1)
    return worker


def _figures(worker: Worker | None, device: torch.device) -> Row:
    heads = ("imports MiB", "predicted MiB", "peak MiB", "prediction", "resident MiB", "s")
    if worker is None:
        return dict.fromkeys(heads)
    (run,) = worker.runs
    predicted = run.get("predicted")
    # Imports take none of a GPU's memory.
    idle = 0 if device.type == "cuda" else worker.idle
    off = None
    if predicted is not None and worker.memory is not None:
        # Of the whole process, as a limit is.
        off = (predicted + (idle or 0)) / (worker.memory + (idle or 0)) - 1
    values = (idle, predicted, worker.memory)
    imports, expected, peak = (None if value is None else round(value / MIB) for value in values)
    resident = None if worker.resident is None else round(worker.resident / MIB)
    return dict(
        zip(
            heads,
            (imports, expected, peak, None if off is None else f"{off:+.0%}", resident, run["total"]),
            strict=True,
        )
    )


def _difference(found: dict[str, Tensor], first: dict[str, Tensor]) -> str:
    """Of the first way's outputs: none at all, or the largest."""
    largest = max(float((found[name] - first[name]).abs().max()) for name in first)
    return "equal, bit for bit" if largest == 0 else f"{largest:.1e}"
