"""The process of one row: builds its step, says so, then takes as many steps as it is told on each line of its input.

    python -m pixart_sigma.benchmark.worker '{"scenario": "pocket", "side": "ours", "device": "cpu", "switches": {}}'

A process a row, because peak memory is a process's, and so is what the allocator was told. Answers are JSON
lines; whatever else is printed goes to stderr.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from typing import Any, TextIO

import torch

from pixart_sigma.allocator import keep_freed_memory
from pixart_sigma.benchmark.processes import anonymous_memory
from pixart_sigma.benchmark.scenarios import choose, draw_features
from pixart_sigma.benchmark.steps import Step, load_libraries, our_step, plain_step
from pixart_sigma.benchmark.switches import Switches
from pixart_sigma.errors import PixArtSigmaError

WARM_UP_STEPS = 2


def serve(task: dict[str, Any], orders: TextIO, answers: TextIO) -> None:
    """First answer: what warming up took. Then, for each order, a number of steps, the seconds of each of them."""
    device = torch.device(task["device"])
    (scenario,) = choose(device.type, [task["scenario"]])
    switches = Switches(**task["switches"])
    features = draw_features(scenario)
    load_libraries(task["side"])
    _answer(answers, {"idle_memory": anonymous_memory(os.getpid())})
    if task["side"] == "ours":
        if switches.keep_memory:
            keep_freed_memory()
        step = our_step(scenario, features, device, switches)
    else:
        step = plain_step(scenario, features, device)
    started = time.perf_counter()
    losses = [step() for _ in range(WARM_UP_STEPS)]
    _answer(answers, {"warm_up_seconds": time.perf_counter() - started, "losses": losses})
    for order in orders:
        seconds = [_seconds(step, device) for _ in range(int(order))]
        memory = torch.cuda.max_memory_allocated() if device.type == "cuda" else None
        _answer(answers, {"seconds": seconds, "memory": memory})


def _seconds(step: Step, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _answer(answers: TextIO, content: dict[str, Any]) -> None:
    answers.write(json.dumps(content) + "\n")
    answers.flush()


def _main() -> int:
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        try:
            serve(json.loads(sys.argv[1]), sys.stdin, answers)
        except PixArtSigmaError as error:
            _answer(answers, {"error": str(error)})
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(_main())
