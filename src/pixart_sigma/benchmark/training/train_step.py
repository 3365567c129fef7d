"""Suites train-step and ablations: a training step on cached features, beside a plain loop's, or beside others of ours.

The plain loop is one with diffusers' transformer, torch's AdamW and accelerate.

All rows of a scenario step in turns, in processes of their own, so that a busy machine slows all of them; the median
of each row's steps counts. Compilation and warming up are timed apart.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from pixart_sigma.benchmark.processes import Task, Worker, started, take_turns
from pixart_sigma.benchmark.table import Row
from pixart_sigma.benchmark.training.scenarios import Scenario, draw_features
from pixart_sigma.benchmark.training.switches import ABLATIONS, Switches
from pixart_sigma.errors import PixArtSigmaError
from pixart_sigma.training.plan.cost import forward_flops
from pixart_sigma.training.plan.hardware import GPUS

PLAIN = "diffusers + accelerate"
OURS = "ours"
COMPILED = "ours, compiled"
_WORKER = "pixart_sigma.benchmark.training.worker"
_ALLOWED = 0.01
"""Of the error: each side rounds in places of its own."""


def train_step(
    scenarios: Sequence[Scenario],
    device: torch.device,
    rounds: int,
    compiled: bool,
    say: Callable[[str], None],
) -> Iterator[Row]:
    """Every row of every scenario; `say` is told what is going on.

    Raises MissingDependency without accelerate, PixArtSigmaError if a process ends early or the sides' first errors
    differ.
    """
    for scenario in scenarios:
        say(_describe(scenario))
        sides = {PLAIN: ("plain", Switches()), OURS: ("ours", Switches())}
        if compiled:
            sides[COMPILED] = ("ours", replace(Switches(), compiled=True))
        workers = _timed(scenario, sides, device, rounds)
        yield from _rows(scenario, workers, device)


def ablations(
    scenarios: Sequence[Scenario], device: torch.device, rounds: int, say: Callable[[str], None]
) -> Iterator[Row]:
    """Suite ablations: ours beside ours with one thing changed, two processes at a time. Raises as `train_step`."""
    for scenario in scenarios:
        for name, switches in ABLATIONS.items():
            say(f"{scenario.name}: {name}")
            sides = {OURS: ("ours", Switches()), name: ("ours", switches)}
            whole, changed = _timed(scenario, sides, device, rounds)
            before, after = statistics.median(whole.seconds), statistics.median(changed.seconds)
            yield {
                "scenario": scenario.name,
                "ours, but": name,
                "s/step": after,
                "ours s/step": before,
                "time": f"{after / before:.2f}x",
                "peak MiB": _mebibytes(changed),
                "ours peak MiB": _mebibytes(whole),
            }


def step_task(scenario: Scenario, name: str, side: str, switches: Switches, device: torch.device) -> Task:
    """The process of a row of that name; side is "ours" or "plain"."""
    arguments = {
        "scenario": scenario.name,
        "side": side,
        "device": device.type,
        "switches": asdict(switches),
    }
    return Task(name, _WORKER, arguments)


def _timed(
    scenario: Scenario, sides: dict[str, tuple[str, Switches]], device: torch.device, rounds: int
) -> list[Worker]:
    """Workers that have taken their steps, in turns, and have ended."""
    tasks = [step_task(scenario, name, side, switches, device) for name, (side, switches) in sides.items()]
    with tempfile.TemporaryDirectory() as folder, started(tasks, Path(folder)) as workers:
        _check_equal(scenario, workers)
        take_turns(workers, rounds)
        return workers


def _check_equal(scenario: Scenario, workers: Sequence[Worker]) -> None:
    """Before any update all sides compute the same error, to the rounding of bf16.

    Raises PixArtSigmaError if they do not.
    """
    plain, *others = ((worker.name, worker.ready["losses"][0]) for worker in workers)
    for name, error in others:
        if abs(error - plain[1]) > _ALLOWED * plain[1]:
            raise PixArtSigmaError(
                f"{scenario.name}: the first error of {name} is {error:.5f} and that of {plain[0]} {plain[1]:.5f}; "
                f"they may differ by {_ALLOWED:.0%}, so the sides do not compute the same"
            )


def _describe(scenario: Scenario) -> str:
    lengths = draw_features(scenario).num_caption_tokens
    return (
        f"{scenario.name}: {scenario.batch_size} pictures of {scenario.num_tokens} tokens; captions of {min(lengths)} "
        f"to {max(lengths)} tokens, {sum(lengths) / len(lengths):.0f} on average (the plain side pads them to 300)"
    )


def _rows(scenario: Scenario, workers: Sequence[Worker], device: torch.device) -> list[Row]:
    plain = workers[0]
    rows = []
    for worker in workers:
        seconds = statistics.median(worker.seconds)
        rows.append(
            {
                "scenario": scenario.name,
                "side": worker.name,
                "s/step": seconds,
                "fastest": min(worker.seconds),
                "samples/s": scenario.batch_size / seconds,
                "speed": f"{statistics.median(plain.seconds) / seconds:.2f}x",
                "peak MiB": _mebibytes(worker),
                "memory": None
                if worker.memory is None or plain.memory is None
                else f"{worker.memory / plain.memory:.2f}x",
                "MFU": _mfu(scenario, seconds, device),
                "warm-up s": worker.ready["warm_up_seconds"],
                "first error": f"{worker.ready['losses'][0]:.4f}",
            }
        )
    return rows


def _mebibytes(worker: Worker) -> int | None:
    return None if worker.memory is None else round(worker.memory / 2**20)


def _mfu(scenario: Scenario, seconds: float, device: torch.device) -> str | None:
    """The model's operations on real tokens, over what the card could have done; None for unknown cards."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device).lower().replace(" ", "")
    cards = [gpu for gpu in GPUS.values() if gpu.name.partition("-")[0] in name]
    if not cards:
        return None
    lengths = draw_features(scenario).num_caption_tokens
    flops = 3 * sum(
        forward_flops(scenario.config, scenario.side, scenario.side, length).total for length in lengths
    )
    return f"{flops / seconds / (cards[0].tflops * 1e12):.0%}"
