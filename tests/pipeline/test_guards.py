"""Every guard by itself, on the facts it needs; then those of a whole pipeline of tiny parts."""

import json
import math
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from pixart_sigma.diffusion.sampling import Step
from pixart_sigma.errors import InvalidInput, WeightsError
from pixart_sigma.model.config import KVCompression, TransformerConfig
from pixart_sigma.pipeline import guards
from pixart_sigma.pipeline.parts import Parts
from pixart_sigma.pipeline.request import Request
from pixart_sigma.pipeline.samplers import SAMPLERS, check_sampler
from pixart_sigma.pipeline.text_to_image import TextToImage
from pixart_sigma.weights.catalogue import releases
from pixart_sigma.weights.transformer import build

SMALL: dict[str, Any] = {"height": 64, "width": 48, "num_steps": 3}


@contextmanager
def silence() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> TextToImage:
    return TextToImage.from_pretrained(tiny_folder)


def as_released(model: TextToImage, name: str, **changes: Any) -> Parts:
    """Tiny parts that go by the name of a released model."""
    release = releases()[name]
    return replace(
        model._parts,
        name=name,
        release=release,
        caption_length=release.caption_length,
        **changes,
    )


@pytest.mark.parametrize("name", list(releases()))
def test_every_release_as_it_is_breaks_no_rule(name: str) -> None:
    release = releases()[name]
    config = TransformerConfig(
        sample_size=release.sample_size, interpolation_scale=release.interpolation_scale
    )
    with silence():
        guards.check_positions(config, release.family)
        guards.check_autoencoder(release.vae_scaling_factor, release.family, name)
        kind = release.sampling.kind
        side = release.resolution
        for height, width in ((side, side), (side // 2, 2 * side), (side * 3 // 4, side)):
            guards.check_size(height, width, release.sample_size, release.family, kind, name)


@pytest.mark.parametrize(
    ("scaling_factor", "family", "message"),
    [
        (
            0.18215,
            "sigma",
            r"\(scaling factor 0.18215\) is SD's, of PixArt-α; .* trained with SDXL's \(0.13025\).*"
            r"--components PixArt-alpha/pixart_sigma_sdxlvae_T5_diffusers",
        ),
        (
            0.13025,
            "alpha",
            r"is SDXL's, of PixArt-Σ; .* trained with SD's \(0.18215\).*--components PixArt-alpha/",
        ),
    ],
)
def test_an_autoencoder_of_the_other_family(scaling_factor: float, family: Any, message: str) -> None:
    with pytest.warns(UserWarning, match=message):
        guards.check_autoencoder(scaling_factor, family, "mine")
    with silence():
        guards.check_autoencoder(0.5, family, "mine")


@pytest.mark.parametrize(
    ("sample_size", "interpolation_scale", "family", "fitting"),
    [
        (32, 1.0, "sigma", "0.5"),  # what diffusers takes where the configuration leaves it out
        (128, 1.0, "sigma", "2"),
        (64, 2.0, "sigma", "1"),
        (360, 5.0, "sigma", "5.625"),
        (32, 0.5, "alpha", "1"),
        (128, 1.0, "alpha", "2"),
    ],
)
def test_interpolation_that_does_not_fit_the_size(
    sample_size: int, interpolation_scale: float, family: Any, fitting: str
) -> None:
    config = TransformerConfig(sample_size=sample_size, interpolation_scale=interpolation_scale)
    with pytest.warns(UserWarning, match=f'write "interpolation_scale": {re.escape(fitting)} in transformer'):
        guards.check_positions(config, family)
    with silence():
        guards.check_positions(replace(config, interpolation_scale=float(fitting)), family)


@pytest.mark.parametrize(
    ("height", "width", "sample_size", "family", "kind", "remedy"),
    [
        (256, 256, 128, "sigma", "many-step", "--model sigma-256, or --size 1024x1024 or near it"),
        (512, 512, 128, "sigma", "many-step", "--model sigma-512, or"),
        (704, 704, 128, "sigma", "many-step", "--model sigma-512, or"),
        (1024, 1024, 32, "sigma", "many-step", "--model sigma-1024, or --size 256x256 or near it"),
        (2048, 2048, 128, "sigma", "many-step", "--model sigma-2k, or"),
        (256, 256, 128, "alpha", "many-step", "--model alpha-256, or"),
        (256, 256, 128, "alpha", "lcm", "use --size 1024x1024 or near it"),
        (3840, 3840, 256, "sigma", "many-step", "use --size 2048x2048 or near it"),
    ],
)
def test_a_size_far_from_the_models_own(
    height: int, width: int, sample_size: int, family: Any, kind: Any, remedy: str
) -> None:
    with pytest.warns(UserWarning, match=re.escape(remedy)) as caught:
        guards.check_size(height, width, sample_size, family, kind, "mine")
    assert f"about {sample_size * 8}x{sample_size * 8} pixels" in str(caught[0].message)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("kind", ["many-step", "lcm", "dmd"])
def test_a_sampler_that_the_weights_cannot_use(sampler: str, kind: Any) -> None:
    if SAMPLERS[sampler].kind == kind:
        check_sampler(sampler, (kind,), "mine")
        return
    own = {"many-step": "dpm++-2m", "lcm": "lcm", "dmd": "dmd"}[kind]
    with pytest.raises(InvalidInput, match=f"use --sampler {re.escape(own)}") as error:
        check_sampler(sampler, (kind,), "mine")
    if kind == "many-step":
        released = {"lcm": "alpha-1024-lcm", "dmd": "alpha-512-dmd"}[sampler]
        assert f"--model {released}" in str(error.value)
    assert "\n" not in str(error.value)


def test_captions_longer_than_the_model_takes() -> None:
    mask = torch.arange(300) < torch.tensor([120, 121])[:, None]
    guards.check_caption_length(mask[:1], 120, "mine")
    with pytest.raises(InvalidInput, match=r"a caption of 121 tokens .* mine takes 120: encode it with this"):
        guards.check_caption_length(mask, 120, "mine")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_latents_that_are_not_finite(bad: float) -> None:
    latents = torch.zeros(2, 4, 4, 4)
    guards.check_finite(Step(1, 20, 949.0, latents), torch.bfloat16)
    latents[1, 2, 3, 0] = bad
    step = Step(7, 20, 649.0, latents)
    with pytest.raises(
        WeightsError, match=r"after step 7 of 20 \(timestep 649, bfloat16\); use --dtype float32$"
    ):
        guards.check_finite(step, torch.bfloat16)
    with pytest.raises(WeightsError, match=r"float32\); the weights or the embeddings are broken"):
        guards.check_finite(step, torch.float32)


def test_pixels_that_are_not_finite() -> None:
    guards.check_pixels(torch.zeros(3, 8, 8), torch.bfloat16)
    with pytest.raises(WeightsError, match=r"pixels are not finite \(bfloat16\).*use --dtype float32"):
        guards.check_pixels(torch.full((3, 8, 8), math.nan), torch.bfloat16)


def test_a_black_picture() -> None:
    with silence():
        guards.check_not_black(Image.new("RGB", (8, 8), (0, 0, 3)), 0)
    with pytest.warns(UserWarning, match="picture 3 is black all over; unless it should be"):
        guards.check_not_black(Image.new("RGB", (8, 8), (0, 2, 0)), 2)


# In a pipeline.


def test_what_is_not_of_a_known_shape_is_left_alone(tiny_folder: Path, tmp_path: Path) -> None:
    """As the pocket model: no size, interpolation or scaling factor is wrong for it."""
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "mine"))
    components = Path(shutil.copytree(tiny_folder, tmp_path / "components"))
    shutil.rmtree(folder / "vae")
    for path, change in (
        (folder / "transformer" / "config.json", {"interpolation_scale": 7.0}),
        (components / "vae" / "config.json", {"scaling_factor": 0.18215}),
    ):
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with silence():
        model = TextToImage.from_pretrained(folder, components=components)
        assert model._parts.borrowed_autoencoder
        model("a red house", height=16, width=1024, num_steps=1)


def test_a_pipeline_warns_of_its_parts(model: TextToImage) -> None:
    with pytest.warns(
        UserWarning, match="interpolation_scale 0.5 does not fit sample_size 32, where PixArt-α"
    ):
        TextToImage(as_released(model, "alpha-256"))
    model.autoencoder.scaling_factor = 0.18215
    try:
        with pytest.warns(UserWarning, match="is SD's, of PixArt-α; model sigma-256 is of PixArt-Σ"):
            TextToImage(as_released(model, "sigma-256"))
    finally:
        model.autoencoder.scaling_factor = 0.5


def test_a_pipeline_warns_of_its_sizes(model: TextToImage) -> None:
    released = TextToImage(as_released(model, "sigma-256"))
    with pytest.warns(UserWarning, match="sigma-256 was trained on about 256x256 pixels.* of 48x64"):
        released("a red house", **SMALL)
    with silence():
        released("a red house", num_steps=1)


def test_a_model_for_small_sizes_too_is_used_at_small_sizes(model: TextToImage) -> None:
    parts = as_released(model, "sigma-256")
    compression = KVCompression((2, 2), "average", (2, 3), from_tokens=3600)
    config = replace(model.transformer.config, kv_compression=compression)
    compressed = build(config, model.transformer.state_dict(), "here").eval()
    with silence():
        TextToImage(replace(parts, transformer=compressed))("a red house", **SMALL)


def test_a_pipeline_refuses_samplers_before_it_encodes(
    model: TextToImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model.text_encoder, "encode", None)
    with pytest.raises(InvalidInput, match="sampler 'lcm' is for models distilled for it"):
        model("a red house", sampler="lcm", **(SMALL | {"num_steps": None}))
    distilled = TextToImage(replace(model._parts, scheduler_config={"_class_name": "LCMScheduler"}))
    with pytest.raises(
        InvalidInput, match="was distilled for sampler 'lcm' and makes no pictures with 'ddim'"
    ):
        distilled("a red house", sampler="ddim", **SMALL)
    with pytest.raises(InvalidInput, match="sampler 'lcm' takes no guidance"):
        distilled("a red house", guidance_scale=4.5, **SMALL)


def test_distilled_models_have_their_own_defaults(model: TextToImage) -> None:
    for scheduler, sampler, steps in (
        ("LCMScheduler", "lcm", 4),
        ("DPMSolverMultistepScheduler", "dpm++-2m", 20),
    ):
        chosen = TextToImage(replace(model._parts, scheduler_config={"_class_name": scheduler}))
        seen = []
        chosen("a red", height=32, width=32, on_step=lambda step, seen=seen: seen.append(step.total))
        assert chosen.sampler == sampler
        assert seen == [steps] * steps
    with silence():
        dmd = TextToImage(as_released(model, "alpha-512-dmd", transformer=None))
    assert dmd.sampler == "dmd"


def test_a_pipeline_refuses_captions_of_another_model(model: TextToImage) -> None:
    encoded = model.encode(["red " * 200])
    short = TextToImage(replace(model._parts, caption_length=120))
    with pytest.raises(InvalidInput, match="a caption of 201 tokens was encoded for another model"):
        short.denoise(encoded, Request(("red",), **SMALL))


def test_a_pipeline_names_the_step_at_which_it_broke(tiny_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "broken"))
    model = TextToImage.from_pretrained(folder)
    with torch.no_grad():
        model.transformer.proj_out.bias.fill_(math.nan)
    with pytest.raises(WeightsError, match=r"not finite after step 1 of 3 \(timestep 999, float32\)"):
        model("a red house", **SMALL)


def test_a_pipeline_looks_at_its_pictures(tiny_folder: Path) -> None:
    model = TextToImage.from_pretrained(tiny_folder)
    last = model.autoencoder.model.decoder.conv_out
    with torch.no_grad():
        last.weight.zero_()
        last.bias.fill_(-1.0)
    with pytest.warns(UserWarning, match="picture 1 is black all over"):
        model("a red house", **SMALL)
    with torch.no_grad():
        last.bias.fill_(math.nan)
    with pytest.raises(WeightsError, match="the autoencoder's pixels are not finite"):
        model("a red house", **SMALL)
