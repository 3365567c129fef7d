"""The process of one way of a scenario: `python -m pixart_sigma.benchmark.memory.worker ARGUMENTS`.

Runs once, and writes what came out to a file. Knows nothing of other ways.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from pixart_sigma.allocator import keep_freed_memory
from pixart_sigma.benchmark.inference.scenarios import prompts
from pixart_sigma.benchmark.memory.scenarios import Scenario, Way, choose
from pixart_sigma.benchmark.serving import Arguments, Run, seconds_now, serve
from pixart_sigma.encoders.autoencoder import Autoencoder
from pixart_sigma.encoders.autoencoder_memory import predict_decode_bytes
from pixart_sigma.encoders.kl_autoencoder import KLAutoencoder
from pixart_sigma.encoders.kl_autoencoder_files import parse_config
from pixart_sigma.encoders.strips.coding import decode_in_strips, plan_decode
from pixart_sigma.encoders.text import TextEncoder
from pixart_sigma.encoders.tiling import Tiling, find_spill_folder
from pixart_sigma.pipeline.device import DTYPES
from pixart_sigma.pipeline.memory.run import Setup, carry_out, import_libraries, plan_generation
from pixart_sigma.pipeline.request import Request
from pixart_sigma.pipeline.samplers import DEFAULT_SAMPLER
from pixart_sigma.resolution import LATENT_SCALE
from pixart_sigma.weights.folder import POCKET, find_pipeline, read_json

_UNLIMITED = 2**50
Done = tuple[dict[str, Tensor], int | None]
"""What came out by name, and the bytes that were predicted beyond what imports took."""


def _load(arguments: Arguments) -> None:
    (scenario,) = choose([arguments["scenario"]], arguments["device"])
    way = next(way for way in scenario.ways if way.name == arguments["way"])
    import_libraries(way.text_hold, DEFAULT_SAMPLER)


def _build(arguments: Arguments) -> tuple[dict[str, Any], Run]:
    (scenario,) = choose([arguments["scenario"]], arguments["device"])
    way = next(way for way in scenario.ways if way.name == arguments["way"])
    device = torch.device(arguments["device"])
    folder = Path(arguments["folder"]) if arguments["folder"] else None
    work: dict[str, Callable[[], Done]] = {
        "text": lambda: _text(scenario, way, folder, device),
        "decode": lambda: _decode(scenario, way, folder, device),
        "picture": lambda: _picture(scenario, way, folder, device, arguments["num_steps"]),
    }

    def run() -> dict[str, float]:
        started = seconds_now(device)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # random weights make black pictures
            outputs, predicted = work[scenario.work]()
        seconds = seconds_now(device) - started
        save_file({name: tensor.cpu().contiguous() for name, tensor in outputs.items()}, arguments["outputs"])
        return {"total": seconds} | ({} if predicted is None else {"predicted": predicted})

    return {}, run


def _text(scenario: Scenario, way: Way, folder: Path | None, device: torch.device) -> Done:
    assert folder is not None
    assert way.text_hold is not None
    encoder = TextEncoder.from_pretrained(folder, DTYPES[scenario.dtype], held=way.text_hold, device=device)
    embeddings, _ = encoder.encode(prompts(1))
    return {"embeddings": embeddings.float()}, None


def _decode(scenario: Scenario, way: Way, folder: Path | None, device: torch.device) -> Done:
    assert folder is not None
    dtype = DTYPES[scenario.dtype]
    config = read_json(folder / "vae" / "config.json")
    tiling, predicted = None, None
    if way.method is None:
        keep_freed_memory()
    else:
        spill = find_spill_folder() if way.method == "exact" else None
        tiling = Tiling(way.method, way.limit_bytes, spill)
        predicted = _autoencoder_bytes(config, dtype) + predict_decode_bytes(
            config, *scenario.size, dtype.itemsize, tiling, device=device
        )
    autoencoder = Autoencoder.from_pretrained(folder, dtype, tiling).to(device)
    height, width = (side // LATENT_SCALE for side in scenario.size)
    channels = autoencoder.model.config.latent_channels
    latents = torch.randn(1, channels, height, width, generator=torch.Generator().manual_seed(0)).to(device)
    if way.strip_bytes is None:
        return {"pixels": autoencoder.decode(latents)}, predicted
    assert way.limit_bytes is not None
    lower = {"limit_bytes": way.limit_bytes, "strip_bytes": way.strip_bytes}
    planned = plan_decode(autoencoder.model, height, width, may_spill=True, **lower)
    unscaled = latents / autoencoder.scaling_factor + autoencoder.shift_factor
    pixels = decode_in_strips(autoencoder.model, unscaled, spill=find_spill_folder(), **lower)
    return {"pixels": pixels}, _autoencoder_bytes(config, dtype) + planned.peak_bytes


def _autoencoder_bytes(config: Mapping[str, Any], dtype: torch.dtype) -> int:
    """Its weights are copied on loading, so that no file holds them: they are in the peak on every device."""
    with torch.device("meta"):
        model = KLAutoencoder(parse_config(config))
    return dtype.itemsize * sum(weight.numel() for weight in model.state_dict().values())


def _picture(scenario: Scenario, way: Way, folder: Path | None, device: torch.device, num_steps: int) -> Done:
    request = Request(
        (prompts(1)[0] if folder is not None else "a red house by a lake",),
        height=scenario.size[0],
        width=scenario.size[1],
        num_steps=num_steps,
        kv_compression=scenario.window,
    )
    setup = Setup(
        find_pipeline(folder if folder is not None else POCKET), dtype=scenario.dtype, device=device.type
    )
    plan = plan_generation(setup, request, way.limit_bytes or _UNLIMITED)
    result = carry_out(plan, setup, request, fast=way.limit_bytes is None)
    # Without a limit what is freed is kept, for speed, and nothing is predicted.
    predicted = None if way.limit_bytes is None else plan.peak_bytes - plan.process_bytes
    return {"latents": result.latents}, predicted


if __name__ == "__main__":
    sys.exit(serve(_load, _build))
