"""Suites pipeline-waterfall and transformer-waterfall: a chain of rows, each beside the row before it.

The first row is diffusers, the second ours with everything off that can be switched off, and each further one has one
optimisation more, up to the library as it is; if asked for, that one compiled comes last. The first two differ in whose
code they are, not in what the allocator does with freed memory. Two processes at a time, in turns, so that what slows
the machine slows both, and each row's outputs have passed the equality gate against diffusers'.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors.torch import load_file

from pixart_sigma.benchmark.inference.gate import compare
from pixart_sigma.benchmark.inference.measure import described, provided
from pixart_sigma.benchmark.inference.scenarios import Scenario, Work
from pixart_sigma.benchmark.inference.switches import KEPT_MEMORY, switches
from pixart_sigma.benchmark.inference.tasks import OURS, THEIRS, Setting, Side
from pixart_sigma.benchmark.outcome import Say
from pixart_sigma.benchmark.processes import Worker, started, take_turns
from pixart_sigma.benchmark.table import Row
from pixart_sigma.errors import MissingDependency, PixArtSigmaError
from pixart_sigma.pipeline.device import DTYPES

Suite = Literal["transformer", "pipeline"]
WORKS: dict[Suite, Work] = {"transformer": "step", "pipeline": "picture"}
"""A step of many: in a single forward pass whatever is done once a prompt would count as if it were done each time."""
EVERYTHING_OFF = "everything that can be switched off"
COMPILED = "+ blocks compiled"


class Link(NamedTuple):
    """A row: its name, whose it is, and what is switched off in it; of diffusers, what is the process's alone."""

    name: str
    side: Side
    off: tuple[str, ...]
    compiled: bool = False


def links(work: Work, device_type: str, dtype: str, compiled: bool = False) -> list[Link]:
    """The rows of a kind of work, in their order."""
    names = switches(work, device_type, dtype)
    ours = [EVERYTHING_OFF, *(f"+ {name}" for name in names)]
    return [
        # Beside a row of ours whose process does not keep freed memory, theirs must not either.
        Link(THEIRS, THEIRS, (KEPT_MEMORY,)),
        *(Link(label, OURS, tuple(names[switched_on:])) for switched_on, label in enumerate(ours)),
        *[Link(COMPILED, OURS, (), compiled=True)] * compiled,
    ]


def measure_waterfall(
    suite: Suite,
    scenarios: Sequence[Scenario],
    dtypes: Sequence[str],
    device: torch.device,
    rounds: int,
    num_steps: int,
    compiled: bool,
    say: Say,
) -> Iterator[Row]:
    """A chain for each scenario in each dtype, again after every link; `say` is told what is going on.

    A chain that fails has its reason, and the links before it. Raises MissingDependency.
    """
    for scenario, dtype, folder, text_layers in provided(scenarios, dtypes, device, say):
        setting = Setting(suite, scenario, dtype, device, num_steps, WORKS[suite])
        rows = links(WORKS[suite], device.type, dtype, compiled)
        for row in measure_chain(setting, rows, rounds, folder, say):
            yield row | {"text_layers": text_layers}


def measure_chain(
    setting: Setting, all_links: Sequence[Link], rounds: int, folder: Path, say: Say
) -> Iterator[Row]:
    """The rows of a scenario so far, after each of them.

    Each link holds the seconds of its row and of the row before it, by round. `next`: the row that is still to come,
    None where the chain has ended.
    """
    chain: list[dict[str, Any]] = []
    row: Row = {
        "scenario": setting.scenario.name,
        "dtype": setting.dtype,
        "failed": None,
        "next": None,
    }
    named = f"{setting.scenario.name} in {setting.dtype}"
    with tempfile.TemporaryDirectory() as place:
        files = [Path(place) / f"{number}.safetensors" for number in range(len(all_links))]
        compiled_in = Path(place) / "compiled"
        tasks = [
            setting.task(
                link.name,
                link.side,
                folder,
                file,
                off=link.off,
                compiled_in=compiled_in if link.compiled else None,
            )
            for link, file in zip(all_links, files, strict=True)
        ]
        try:
            for number in range(1, len(tasks)):
                name = tasks[number].name
                say(f"{named}: {name}")
                if all_links[number].compiled:
                    with started([tasks[number]], Path(place)):
                        pass  # so that the compiler's own memory is not in the row's
                with started(tasks[number - 1 : number + 1], Path(place)) as (before, worker):
                    verdict = compare(load_file(files[number]), load_file(files[0]), DTYPES[setting.dtype])
                    if verdict.failure is not None:
                        raise PixArtSigmaError(f"{name}: {verdict.failure}")
                    say(f"{named}: {described(verdict)}; {rounds} rounds")
                    take_turns([before, worker], rounds)
                if number == 1:
                    chain.append(_figures(before))
                chain.append(_figures(worker) | {"before": before.seconds, "gate": asdict(verdict)})
                following = tasks[number + 1].name if number + 1 < len(tasks) else None
                yield row | {"links": list(chain), "next": following}
        except MissingDependency:
            raise
        except PixArtSigmaError as error:
            say(f"{named}: failed: {error}")
            yield row | {"links": chain, "failed": str(error)}


def _figures(worker: Worker) -> dict[str, Any]:
    return {
        "name": worker.name,
        "seconds": worker.seconds,
        "peak_bytes": worker.memory,
        "before": None,
        "gate": None,
    }
