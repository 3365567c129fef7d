import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from comparison import relative_error
from peaks import peak_allocated
from pixart_sigma.encoders.strips.coding import (
    decode_in_strips,
    encode_in_strips,
    least_decode,
    plan_decode,
    plan_encode,
)
from pixart_sigma.encoders.strips.layout import decoder_layers
from pixart_sigma.encoders.strips.plan import MIB
from pixart_sigma.errors import InvalidInput
from random_autoencoders import random_autoencoder, sdxl_autoencoder

KIB = 1024
PLENTY = 2**30
LAYOUTS: dict[str, dict[str, Any]] = {
    "one layer": {},
    "two layers, one group": {"layers": 2, "groups": 1},
    "no attention": {"attention": False, "groups": 8},
    "rising widths": {"widths": (4, 8, 12, 24), "layers": 2},
    "no quantisation": {"use_quant_conv": False, "use_post_quant_conv": False},
}


def decoded(model: Any, latents: Tensor) -> Tensor:
    with torch.no_grad():
        return model.decode(latents)


def encoded(model: Any, pixels: Tensor) -> Tensor:
    with torch.no_grad():
        return model.encode(pixels)[0]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("limit", [PLENTY, 256 * KIB, 96 * KIB])
def test_decoding_equals_the_whole(layout: str, limit: int, tmp_path: Path) -> None:
    model = random_autoencoder(**LAYOUTS[layout])
    latents = torch.randn(1, 4, 7, 11)
    pixels = decode_in_strips(model, latents, limit_bytes=limit, spill=tmp_path)
    assert relative_error(pixels, decoded(model, latents)) <= 1e-5
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("height", "width"), [(32, 48), (37, 53)])
@pytest.mark.parametrize("limit", [PLENTY, 72 * KIB])
def test_encoding_equals_the_whole(layout: str, height: int, width: int, limit: int, tmp_path: Path) -> None:
    model = random_autoencoder(**LAYOUTS[layout])
    pixels = torch.rand(1, 3, height, width) * 2 - 1
    latents = encode_in_strips(model, pixels, limit_bytes=limit, spill=tmp_path)
    assert relative_error(latents, encoded(model, pixels)) <= 1e-5
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (9, 1), (2, 3), (16, 5)])
def test_any_size_can_be_decoded_in_strips_of_one_row(height: int, width: int, tmp_path: Path) -> None:
    model = random_autoencoder()
    latents = torch.randn(1, 4, height, width)
    least = least_decode(model, height, width, may_spill=True)
    plan = plan_decode(model, height, width, limit_bytes=least, may_spill=True, strip_bytes=0)
    layers = decoder_layers(model, height, width)
    assert [step.rows for step in plan.steps] == [layer.step.least_rows for layer in layers]
    pixels = decode_in_strips(model, latents, limit_bytes=least, spill=tmp_path, strip_bytes=0)
    assert relative_error(pixels, decoded(model, latents)) <= 1e-5


def test_two_tilings_are_equal_and_neither_shows_in_the_picture(tmp_path: Path) -> None:
    model = random_autoencoder()
    latents = torch.randn(1, 4, 24, 20)
    limits = (192 * KIB, 150 * KIB)
    heights = [
        [step.rows for step in plan_decode(model, 24, 20, limit_bytes=limit, may_spill=True).steps]
        for limit in limits
    ]
    assert heights[0][-1] != heights[1][-1]
    first, second = (decode_in_strips(model, latents, limit_bytes=limit, spill=tmp_path) for limit in limits)
    assert relative_error(first, second) <= 1e-5


def test_bf16_is_as_near_to_the_truth_as_the_whole_is(tmp_path: Path) -> None:
    model = random_autoencoder(layers=2)
    latents = torch.randn(1, 4, 9, 8).bfloat16()
    truth = decoded(model.double(), latents.double())
    model.bfloat16()
    pixels = decode_in_strips(model, latents, limit_bytes=128 * KIB, spill=tmp_path)
    assert pixels.dtype == torch.bfloat16
    whole = relative_error(decoded(model, latents).double(), truth)
    assert relative_error(pixels.double(), truth) <= 1.25 * whole
    mean = encode_in_strips(model, pixels.float(), limit_bytes=128 * KIB, spill=tmp_path)
    assert relative_error(mean.float(), encoded(model, pixels).float()) <= 0.05


def test_there_are_no_gradients(tmp_path: Path) -> None:
    latents = torch.randn(1, 4, 6, 5, requires_grad=True)
    pixels = decode_in_strips(random_autoencoder(), latents, limit_bytes=48 * KIB, spill=tmp_path)
    assert not pixels.requires_grad
    assert torch.is_grad_enabled()


def test_progress_rises_to_one() -> None:
    model = random_autoencoder()
    seen: list[float] = []
    decode_in_strips(model, torch.randn(1, 4, 6, 5), limit_bytes=PLENTY, on_progress=seen.append)
    assert seen == sorted(seen)
    assert len(seen) == len(set(seen))
    assert seen[-1] == pytest.approx(1)


def test_an_error_midway_leaves_no_file(tmp_path: Path) -> None:
    model = random_autoencoder()

    def stop(done: float) -> None:
        if done > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decode_in_strips(
            model, torch.randn(1, 4, 12, 10), limit_bytes=96 * KIB, spill=tmp_path, on_progress=stop
        )
    assert not list(tmp_path.iterdir())


def test_a_limit_that_cannot_be_met_names_the_least() -> None:
    model = random_autoencoder()
    with pytest.raises(
        InvalidInput, match=r"too little for the decoder of 256x256: the least is \d+ MiB, or"
    ):
        decode_in_strips(model, torch.randn(1, 4, 64, 64), limit_bytes=MIB)
    with pytest.raises(
        InvalidInput, match=r"too little for the encoder of 256x256: the least is 65 MiB, or 9 MiB"
    ):
        plan_encode(model, 1024, 1024, limit_bytes=MIB, may_spill=False)


def test_a_folder_without_room_is_named_before_work_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = random_autoencoder()
    latents = torch.randn(1, 4, 12, 10)
    started: list[float] = []
    with pytest.raises(InvalidInput, match="does not exist"):
        decode_in_strips(
            model, latents, limit_bytes=96 * KIB, spill=tmp_path / "none", on_progress=started.append
        )
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InvalidInput, match=r"has 0 MiB left, and the temporary files need 1 MiB"):
        decode_in_strips(model, latents, limit_bytes=96 * KIB, spill=tmp_path, on_progress=started.append)
    decode_in_strips(model, latents, limit_bytes=PLENTY, spill=tmp_path)  # nothing is spilled then
    assert not started


@pytest.mark.parametrize("shape", [(2, 4, 4, 4), (1, 3, 4, 4), (4, 4, 4)])
def test_latents_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match=r"latents are \(1, 4, height, width\)"):
        decode_in_strips(random_autoencoder(), torch.zeros(shape), limit_bytes=PLENTY)


def test_a_picture_that_leaves_no_latent_is_refused() -> None:
    with pytest.raises(InvalidInput, match="40x3 is too small"):
        encode_in_strips(random_autoencoder(), torch.zeros(1, 3, 3, 40), limit_bytes=PLENTY)


def test_a_plan_needs_shapes_only() -> None:
    with torch.device("meta"):
        model = sdxl_autoencoder()
    plan = plan_decode(model, 270, 480, limit_bytes=4 * 2**30, may_spill=True)
    assert plan.peak_bytes <= 4 * 2**30
    assert plan.spilled_bytes == 2160 * 3840 * (256 + 128) * 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("limit", [PLENTY, 12 * MIB, 6 * MIB])
def test_the_predicted_peak_is_what_torch_allocates(dtype: torch.dtype, limit: int, tmp_path: Path) -> None:
    model = random_autoencoder((16, 32, 64), groups=8).to(dtype)
    latents, pixels = torch.randn(1, 4, 48, 40).to(dtype), torch.rand(1, 3, 192, 160).to(dtype)
    decoding = plan_decode(model, 48, 40, limit_bytes=limit, may_spill=True)
    encoding = plan_encode(model, 192, 160, limit_bytes=limit, may_spill=True)
    for plan, run in (
        (decoding, lambda: decode_in_strips(model, latents, limit_bytes=limit, spill=tmp_path)),
        (encoding, lambda: encode_in_strips(model, pixels, limit_bytes=limit, spill=tmp_path)),
    ):
        assert plan.peak_bytes <= limit
        assert peak_allocated(run) == pytest.approx(plan.peak_bytes, rel=0.15)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("size", [512, 1024])
def test_the_sdxl_shape_equals_the_whole(size: int, tmp_path: Path) -> None:
    model = sdxl_autoencoder()
    latents = torch.randn(1, 4, size // 8, size // 8)
    expected = decoded(model, latents)
    pixels = decode_in_strips(model, latents, limit_bytes=size * MIB // 2, spill=tmp_path)
    assert relative_error(pixels, expected) <= 1e-4


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("size", [512, 1024])
def test_encoding_with_the_sdxl_shape_equals_the_whole(size: int, tmp_path: Path) -> None:
    model = sdxl_autoencoder()
    pixels = torch.rand(1, 3, size, size) * 2 - 1
    latents = encode_in_strips(model, pixels, limit_bytes=size * MIB // 2, spill=tmp_path)
    assert relative_error(latents, encoded(model, pixels)) <= 1e-4
