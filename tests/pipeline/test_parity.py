"""Our pipeline against diffusers' PixArtSigmaPipeline, both loaded from the same tiny random folder."""

from pathlib import Path
from typing import Any

import pytest
import torch

from comparison import relative_error
from pixart_sigma.pipeline.samplers import SAMPLERS, make_scheduler
from pixart_sigma.pipeline.text_to_image import TextToImage

PROMPTS = [" A Red house", "a small cactus with a happy face in the desert"]


@pytest.fixture(scope="module")
def ours(tiny_folder: Path) -> TextToImage:
    return TextToImage.from_pretrained(tiny_folder)


@pytest.fixture(scope="module")
def theirs(tiny_folder: Path) -> Any:
    from diffusers import PixArtSigmaPipeline

    pipeline = PixArtSigmaPipeline.from_pretrained(tiny_folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def reference(pipeline: Any, prompts: list[str], noise: torch.Tensor, **options: Any) -> torch.Tensor:
    latents: torch.Tensor = pipeline(
        prompts,
        height=noise.shape[2] * 8,
        width=noise.shape[3] * 8,
        latents=noise,
        use_resolution_binning=False,
        clean_caption=False,
        output_type="latent",
        **options,
    ).images
    return latents


@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 96), (112, 48)])
@pytest.mark.parametrize("negative_prompt", ["", "Blurry and small "])
def test_latents_equal_those_of_diffusers(
    ours: TextToImage, theirs: Any, height: int, width: int, negative_prompt: str
) -> None:
    noise = torch.randn(2, 4, height // 8, width // 8)
    expected = reference(theirs, PROMPTS, noise, negative_prompt=negative_prompt, num_inference_steps=6)
    options: dict[str, Any] = {
        "height": height,
        "width": width,
        "num_steps": 6,
        "noise": noise,
        "output": "latents",
    }

    latents = ours(PROMPTS, negative_prompt, **options).latents
    assert relative_error(latents, expected) <= 1e-5
    # The comparison would notice another prompt, or another negative one.
    assert relative_error(ours(PROMPTS[::-1], negative_prompt, **options).latents, expected) > 1e-2
    assert relative_error(ours(PROMPTS, "a happy lake", **options).latents, expected) > 1e-3


def test_latents_equal_those_of_diffusers_without_guidance(ours: TextToImage, theirs: Any) -> None:
    noise = torch.randn(1, 4, 8, 8)
    expected = reference(theirs, PROMPTS[:1], noise, guidance_scale=1.0, num_inference_steps=4)
    result = ours(
        PROMPTS[0], height=64, width=64, guidance_scale=1.0, num_steps=4, noise=noise, output="latents"
    )
    assert relative_error(result.latents, expected) <= 1e-5


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_equals_that_of_diffusers(
    ours: TextToImage, theirs: Any, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(theirs, "scheduler", make_scheduler(sampler, ours.scheduler_config))
    noise = torch.randn(1, 4, 8, 8)
    expected = reference(theirs, PROMPTS[:1], noise, num_inference_steps=5)
    result = ours(
        PROMPTS[0], height=64, width=64, num_steps=5, sampler=sampler, noise=noise, output="latents"
    )
    assert relative_error(result.latents, expected) <= 1e-5
