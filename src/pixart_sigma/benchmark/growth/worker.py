"""The process of one way of a scenario: `python -m pixart_sigma.benchmark.growth.worker ARGUMENTS`.

Says how far its prediction is from that of attention written plainly, on the same weights, and then runs as it is.
Captions and timesteps are prepared beforehand, as for a step of many.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from pixart_sigma.allocator import keep_freed_memory
from pixart_sigma.benchmark.growth.reference import written_plainly
from pixart_sigma.benchmark.growth.scenarios import Way, choose, config_in, draw_inputs
from pixart_sigma.benchmark.inference.gate import compare
from pixart_sigma.benchmark.inference.scenarios import TIMESTEP
from pixart_sigma.benchmark.serving import Arguments, Run, seconds_now, serve
from pixart_sigma.model import PixArtTransformer
from pixart_sigma.pipeline.device import DTYPES
from pixart_sigma.weights.transformer import COMPRESSION_PARAMETERS, build, load_transformer


def _load(arguments: Arguments) -> None:
    """Nothing that the modules above do not import."""


def _build(arguments: Arguments) -> tuple[dict[str, Any], Run]:
    device, dtype = torch.device(arguments["device"]), DTYPES[arguments["dtype"]]
    (scenario,) = choose(arguments["suite"], [arguments["scenario"]], device.type)
    keep_freed_memory()
    folder = Path(arguments["folder"]) / "transformer"
    model = in_a_way(load_transformer(folder, dtype), arguments["way"]).to(device)
    inputs = draw_inputs(scenario)
    latents = inputs.latents.to(device, dtype)
    with torch.no_grad():
        captions = model.prepare_captions(inputs.embeds.to(device, dtype), inputs.mask.to(device))
        timesteps = model.prepare_timesteps(torch.tensor([TIMESTEP], device=device))

    def forward() -> torch.Tensor:
        with torch.no_grad():
            return model(latents, captions, timesteps)

    def run() -> dict[str, float]:
        started = seconds_now(device)
        forward()
        return {"total": seconds_now(device) - started}

    with written_plainly(model):
        plain = forward().float()
    verdict = compare({"prediction": forward().float()}, {"prediction": plain}, dtype)
    return {"gate": asdict(verdict), "failure": verdict.failure}, run


def in_a_way(model: PixArtTransformer, way: Way) -> PixArtTransformer:
    """A model with the convolutions' weights → the same one, compressed in that way or not at all."""
    if way == "2x2 conv":
        return model
    kept = {name: weight for name, weight in model.state_dict().items() if COMPRESSION_PARAMETERS not in name}
    return build(config_in(model.config, way), kept, "the model").eval()


if __name__ == "__main__":
    sys.exit(serve(_load, _build))
