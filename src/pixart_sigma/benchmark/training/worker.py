"""The process of one row of a suite on training: `python -m pixart_sigma.benchmark.training.worker ARGUMENTS`."""

from __future__ import annotations

import sys
from typing import Any

import torch

from pixart_sigma.allocator import keep_freed_memory
from pixart_sigma.benchmark.serving import Arguments, Run, seconds_now, serve
from pixart_sigma.benchmark.training.scenarios import choose, draw_features
from pixart_sigma.benchmark.training.steps import load_libraries, our_step, plain_step
from pixart_sigma.benchmark.training.switches import Switches

WARM_UP_STEPS = 2


def _load(arguments: Arguments) -> None:
    load_libraries(arguments["side"])


def _build(arguments: Arguments) -> tuple[dict[str, Any], Run]:
    """Says what the first steps took and gave; a run is a step."""
    device = torch.device(arguments["device"])
    (scenario,) = choose(device.type, [arguments["scenario"]])
    switches = Switches(**arguments["switches"])
    features = draw_features(scenario)
    if switches.keep_memory:
        # As `train` does; any program could, so the other side has it too.
        keep_freed_memory()
    if arguments["side"] == "ours":
        step = our_step(scenario, features, device, switches)
    else:
        step = plain_step(scenario, features, device)

    def run() -> dict[str, float]:
        started = seconds_now(device)
        step()
        return {"total": seconds_now(device) - started}

    started = seconds_now(device)
    losses = [step() for _ in range(WARM_UP_STEPS)]
    return {"warm_up_seconds": seconds_now(device) - started, "losses": losses}, run


if __name__ == "__main__":
    sys.exit(serve(_load, _build))
