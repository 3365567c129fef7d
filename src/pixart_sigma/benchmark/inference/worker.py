"""The process of one side of a suite on inference: `python -m pixart_sigma.benchmark.inference.worker ARGUMENTS`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import save_file

from pixart_sigma.benchmark.inference import ours, theirs
from pixart_sigma.benchmark.inference.compilation import keep_compiled_in
from pixart_sigma.benchmark.inference.scenarios import Scenario, choose
from pixart_sigma.benchmark.inference.stopwatch import Stopwatch
from pixart_sigma.benchmark.inference.switches import switch_off_in_process
from pixart_sigma.benchmark.inference.work import Job
from pixart_sigma.benchmark.serving import Arguments, Run, seconds_now, serve
from pixart_sigma.pipeline.device import DTYPES


def _load(arguments: Arguments) -> None:
    if arguments["compiled_in"] is not None:
        keep_compiled_in(Path(arguments["compiled_in"]))
    _side(arguments).load_libraries(_scenario(arguments).work)


def _build(arguments: Arguments) -> tuple[dict[str, Any], Run]:
    """The first run's outputs go to a file, for the gate."""
    device = torch.device(arguments["device"])
    job = Job(
        scenario=_scenario(arguments),
        folder=Path(arguments["folder"]),
        dtype=DTYPES[arguments["dtype"]],
        device=device,
        num_steps=arguments["num_steps"],
        off=frozenset(arguments["off"]),
        compiled=arguments["compiled_in"] is not None,
    )
    watch = Stopwatch(device)
    switch_off_in_process(job.off)
    # cuDNN would round fp32 convolutions to TF32, each side's in its own way.
    torch.backends.cudnn.allow_tf32 = False
    compute = _side(arguments).BUILDERS[job.scenario.work](job, watch)

    def run() -> dict[str, float]:
        watch.clear()
        started = seconds_now(device)
        with torch.no_grad():
            compute()
        total = seconds_now(device) - started
        return {**watch.stages(total), "total": total}

    started = seconds_now(device)
    with torch.no_grad():
        outputs = compute()
    warm_up = seconds_now(device) - started
    found = {name: tensor.detach().float().cpu().contiguous() for name, tensor in outputs.items()}
    save_file(found, arguments["outputs"])
    return {"warm_up_seconds": warm_up}, run


def _side(arguments: Arguments) -> ModuleType:
    return ours if arguments["side"] == "ours" else theirs


def _scenario(arguments: Arguments) -> Scenario:
    (scenario,) = choose(arguments["suite"], [arguments["scenario"]], arguments["device"], arguments["batch"])
    return replace(scenario, work=arguments["work"])


if __name__ == "__main__":
    sys.exit(serve(_load, _build))
