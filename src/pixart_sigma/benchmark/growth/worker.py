"""The process of one way of a scenario: `python -m pixart_sigma.benchmark.growth.worker ARGUMENTS`.

Says how far its prediction is from that of attention written plainly, on the same weights, and then runs as it is. That
is looked at in fp32, whatever is timed: what a coarser one lets through is as large as what compression changes. What
is timed must be near it as well, within its own tolerance, and is warm then. Captions and timesteps are prepared
beforehand, as for a step of many.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixart_sigma.allocator import keep_freed_memory
from pixart_sigma.benchmark.growth.reference import written_plainly
from pixart_sigma.benchmark.growth.scenarios import Scenario, Way, choose, config_in, draw_inputs
from pixart_sigma.benchmark.inference.gate import Verdict, compare
from pixart_sigma.benchmark.inference.scenarios import TIMESTEP
from pixart_sigma.benchmark.serving import Arguments, Run, seconds_now, serve
from pixart_sigma.model import PixArtTransformer
from pixart_sigma.pipeline.device import DTYPES
from pixart_sigma.weights.transformer import load_transformer, with_kv_compression, without_kv_compression


def _load(arguments: Arguments) -> None:
    """Nothing that the modules above do not import."""


def _build(arguments: Arguments) -> tuple[dict[str, Any], Run]:
    device, dtype = torch.device(arguments["device"]), DTYPES[arguments["dtype"]]
    (scenario,) = choose(arguments["suite"], [arguments["scenario"]], device.type)
    keep_freed_memory()
    folder = Path(arguments["folder"]) / "transformer"
    verdict, plain = _compared(folder, scenario, arguments["way"], device)
    _, forward = _prepared(folder, scenario, arguments["way"], dtype, device)
    timed = compare({"prediction": forward().float()}, plain, dtype)

    def run() -> dict[str, float]:
        started = seconds_now(device)
        forward()
        return {"total": seconds_now(device) - started}

    return {"gate": asdict(verdict), "failure": verdict.failure or timed.failure}, run


def _compared(
    folder: Path, scenario: Scenario, way: Way, device: torch.device
) -> tuple[Verdict, dict[str, Tensor]]:
    """With attention written plainly, and what that gives; without what cuDNN rounds convolutions in fp32 to, unless it
    is told not to.
    """
    model, forward = _prepared(folder, scenario, way, torch.float32, device)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        with written_plainly(model):
            plain = {"prediction": forward()}
        return compare({"prediction": forward()}, plain, torch.float32), plain


def _prepared(
    folder: Path, scenario: Scenario, way: Way, dtype: torch.dtype, device: torch.device
) -> tuple[PixArtTransformer, Callable[[], Tensor]]:
    """The model, and a forward pass of it: what depends on the prompt and the schedule alone is done."""
    model = in_a_way(load_transformer(folder, dtype), way).to(device)
    inputs = draw_inputs(scenario)
    latents = inputs.latents.to(device, dtype)
    with torch.no_grad():
        captions = model.prepare_captions(inputs.embeds.to(device, dtype), inputs.mask.to(device))
        timesteps = model.prepare_timesteps(torch.tensor([TIMESTEP], device=device))

    def forward() -> Tensor:
        with torch.no_grad():
            return model(latents, captions, timesteps)

    return model, forward


def in_a_way(model: PixArtTransformer, way: Way) -> PixArtTransformer:
    """A model with the convolutions' weights → the same one, compressed in that way or not at all."""
    if way == "2x2 conv":
        return model
    compression = config_in(model.config, way).kv_compression
    if compression is None:
        return without_kv_compression(model)
    return with_kv_compression(model, compression)


if __name__ == "__main__":
    sys.exit(serve(_load, _build))
