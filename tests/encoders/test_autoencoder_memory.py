import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from peaks import peak_allocated
from pixart_sigma.encoders.autoencoder import Autoencoder
from pixart_sigma.encoders.autoencoder_memory import (
    least_decode_bytes,
    predict_decode_bytes,
    spilled_decode_bytes,
)
from pixart_sigma.encoders.kl_autoencoder_files import config_content
from pixart_sigma.encoders.strips.coding import plan_decode
from pixart_sigma.encoders.tiling import Tiling, TilingMethod
from pixart_sigma.errors import InvalidInput
from random_autoencoders import random_autoencoder

MIB = 2**20
GIB = 2**30

SDXL = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "_class_name": "AutoencoderKL",
}

LAYOUTS: dict[str, dict[str, Any]] = {
    "as the pocket model's": {"widths": (32, 48, 80, 80), "groups": 8},
    "falling widths": {"widths": (16, 32, 64), "layers": 2},
    "one width": {"widths": (32, 32, 32)},
    "a wide end": {"widths": (64, 16, 16), "layers": 2},
    "attention": {"widths": (16, 32, 64), "attention": True},
}


def autoencoder(layout: str, tiling: Tiling | None = None) -> Autoencoder:
    return Autoencoder(random_autoencoder(**{"attention": False} | LAYOUTS[layout]), tiling)


def decoding_peak(whole: Autoencoder, height: int, width: int) -> int:
    latents = torch.randn(1, 4, height // whole.latent_scale, width // whole.latent_scale)
    with torch.no_grad():
        return peak_allocated(lambda: whole.decode(latents))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_prediction_for_the_whole_is_what_torch_allocates(layout: str) -> None:
    whole = autoencoder(layout)
    predicted = predict_decode_bytes(config_content(whole.model.config), 192, 256, 4, None)
    assert decoding_peak(whole, 192, 256) == pytest.approx(predicted, rel=0.03)


@pytest.mark.parametrize("limit", [None, 24 * MIB])
def test_the_prediction_for_blended_tiles_is_what_torch_allocates(limit: int | None) -> None:
    tiling = Tiling("fast", limit)
    tiled = autoencoder("falling widths", tiling)
    predicted = predict_decode_bytes(config_content(tiled.model.config), 448, 384, 4, tiling)
    assert limit is None or predicted <= limit
    assert decoding_peak(tiled, 448, 384) == pytest.approx(predicted, rel=0.1)


def test_the_prediction_for_strips_is_the_plan(tmp_path: Path) -> None:
    whole = autoencoder("falling widths")
    config = config_content(whole.model.config)
    tiling = Tiling("exact", 4 * MIB, tmp_path)
    plan = plan_decode(whole.model, 64, 48, limit_bytes=4 * MIB, may_spill=True)
    assert predict_decode_bytes(config, 256, 192, 4, tiling) == plan.peak_bytes
    assert spilled_decode_bytes(config, 256, 192, 4, tiling) == plan.spilled_bytes > 0
    assert spilled_decode_bytes(config, 256, 192, 4, Tiling("exact")) == 0
    assert spilled_decode_bytes(config, 256, 192, 4, None) == 0


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(("method", "spills"), [("exact", True), ("exact", False), ("fast", False)])
def test_the_least_is_the_least(method: TilingMethod, spills: bool, count: int, tmp_path: Path) -> None:
    least = least_decode_bytes(SDXL, 1024, 768, 2, method, may_spill=spills, num_images=count)
    spill = tmp_path if spills else None
    assert predict_decode_bytes(SDXL, 1024, 768, 2, Tiling(method, least, spill), num_images=count) <= least
    with pytest.raises(InvalidInput, match="too little for"):
        predict_decode_bytes(SDXL, 1024, 768, 2, Tiling(method, least - 1, spill), num_images=count)


def test_what_4k_takes_with_the_sdxl_shape(tmp_path: Path) -> None:
    whole = predict_decode_bytes(SDXL, 2160, 3840, 4, None)
    assert whole == pytest.approx(
        640 * 2160 * 3840 * 4, rel=0.01
    )  # as the docstring of `whole_bytes` derives
    assert predict_decode_bytes(SDXL, 2160, 3840, 4, None, num_images=2) == 2 * whole
    assert predict_decode_bytes(SDXL, 2160, 3840, 4, Tiling("exact", 4 * GIB, tmp_path)) <= 4 * GIB
    assert predict_decode_bytes(SDXL, 2160, 3840, 4, Tiling("fast", 4 * GIB)) <= 4 * GIB


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("shape", "method", "limit", "size"),
    [
        ("pocket", None, None, (768, 1024)),
        ("pocket", "exact", 64 * MIB, (768, 1024)),
        ("pocket", "fast", 96 * MIB, (768, 1024)),
        ("sdxl", None, None, (384, 512)),
        ("sdxl", "exact", 160 * MIB, (384, 512)),
        ("sdxl", "exact", GIB, (384, 512)),
        ("sdxl", "fast", 320 * MIB, (384, 512)),
    ],
)
def test_the_prediction_is_the_peak_of_the_process(
    shape: str, method: str | None, limit: int | None, size: tuple[int, int], dtype: str, tmp_path: Path
) -> None:
    spill = str(tmp_path) if method == "exact" else None
    task = {"shape": shape, "dtype": dtype, "method": method, "limit": limit, "spill": spill, "size": size}
    script = Path(__file__).with_name("anonymous_peak.py")
    done = subprocess.run(
        [sys.executable, script, json.dumps(task)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(script.parent.parent)},
    )
    measured = json.loads(done.stdout.splitlines()[-1])
    assert measured["predicted"] == pytest.approx(measured["peak"], rel=0.15)
