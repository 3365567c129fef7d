"""Our pipeline against diffusers' pipelines, both loaded from the same tiny random folders."""

import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from comparison import relative_error
from padding import padded
from pixart_sigma.model.config import TransformerConfig
from pixart_sigma.model.transformer import PixArtTransformer
from pixart_sigma.pipeline.samplers import SAMPLERS
from pixart_sigma.pipeline.text_to_image import TextToImage
from pixart_sigma.weights.transformer import save_transformer
from tiny_pipeline import MODEL_INDEX, SCHEDULER, TRANSFORMER, write_json, write_tiny_pipeline

PROMPTS = [" A Red house", "a small cactus with a happy face in the desert", "big"]


@pytest.fixture(scope="module")
def ours(tiny_folder: Path) -> TextToImage:
    return TextToImage.from_pretrained(tiny_folder)


@pytest.fixture(scope="module")
def theirs(tiny_folder: Path) -> Any:
    return load("PixArtSigmaPipeline", tiny_folder)


@pytest.fixture(scope="module")
def alpha_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """α at 1024 px: conditions on the picture's size and aspect, which diffusers gives if sample_size is 128."""
    folder = write_tiny_pipeline(tmp_path_factory.mktemp("tiny") / "alpha")
    config = replace(TRANSFORMER, micro_conditioning=True, sample_size=128, interpolation_scale=2.0)
    save_transformer(PixArtTransformer(TransformerConfig(**vars(config))), folder / "transformer")
    write_json(folder / "model_index.json", MODEL_INDEX | {"_class_name": "PixArtAlphaPipeline"})
    return folder


def load(class_name: str, folder: Path, **options: Any) -> Any:
    import diffusers

    pipeline = getattr(diffusers, class_name).from_pretrained(folder, **options)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def reference(pipeline: Any, prompts: list[str], height: int, width: int, **options: Any) -> torch.Tensor:
    latents: torch.Tensor = pipeline(
        prompts,
        height=height,
        width=width,
        use_resolution_binning=False,
        clean_caption=False,
        output_type="latent",
        **options,
    ).images
    return latents


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 96), (112, 48)])
@pytest.mark.parametrize("negative_prompt", ["", "Blurry and small "])
def test_latents_equal_those_of_diffusers_after_20_steps(
    ours: TextToImage, theirs: Any, height: int, width: int, negative_prompt: str
) -> None:
    """Noise is drawn by either from the same seeds."""
    expected = reference(
        theirs, PROMPTS, height, width, negative_prompt=negative_prompt, generator=generators(5, 6, 7)
    )
    options: dict[str, Any] = {"height": height, "width": width, "seed": 5, "output": "latents"}
    latents = ours(PROMPTS, negative_prompt, **options).latents
    assert relative_error(latents, expected) <= 1e-5
    # The comparison would notice another prompt, or another negative one.
    assert relative_error(ours(PROMPTS[::-1], negative_prompt, **options).latents, expected) > 1e-2
    assert relative_error(ours(PROMPTS, "a happy lake", **options).latents, expected) > 1e-3


def test_latents_equal_those_of_diffusers_with_several_pictures_of_a_prompt(
    ours: TextToImage, theirs: Any
) -> None:
    expected = reference(
        theirs, PROMPTS[:2], 48, 64, num_images_per_prompt=2, generator=generators(0, 1, 2, 3)
    )
    result = ours(PROMPTS[:2], height=48, width=64, num_images=2, output="latents")
    assert relative_error(result.latents, expected) <= 1e-5


def test_latents_equal_those_of_diffusers_with_given_noise(ours: TextToImage, theirs: Any) -> None:
    noise = torch.randn(1, 4, 8, 8)
    expected = reference(theirs, PROMPTS[:1], 64, 64, latents=noise)
    result = ours(PROMPTS[0], height=64, width=64, noise=noise, output="latents")
    assert relative_error(result.latents, expected) <= 1e-5


def test_latents_equal_those_of_diffusers_without_guidance(ours: TextToImage, theirs: Any) -> None:
    expected = reference(theirs, PROMPTS[:1], 64, 64, guidance_scale=1.0, generator=generators(3))
    result = ours(PROMPTS[0], height=64, width=64, guidance_scale=1.0, seed=3, output="latents")
    assert relative_error(result.latents, expected) <= 1e-5


@pytest.mark.parametrize(("height", "width"), [(64, 64), (112, 48)])
def test_latents_equal_those_of_diffusers_with_micro_conditions(
    alpha_folder: Path, height: int, width: int
) -> None:
    ours = TextToImage.from_pretrained(alpha_folder)
    assert ours.text_encoder.caption_length == 120
    expected = reference(
        load("PixArtAlphaPipeline", alpha_folder),
        PROMPTS,
        height,
        width,
        negative_prompt="blurry",
        generator=generators(0, 1, 2),
    )
    options: dict[str, Any] = {"height": height, "width": width, "output": "latents"}
    assert relative_error(ours(PROMPTS, "blurry", **options).latents, expected) <= 1e-5
    # The aspect ratio counts: the bucket's nominal one makes another picture.
    ours.profile = replace(ours.profile, nominal_aspect=True)
    other = relative_error(ours(PROMPTS, "blurry", **options).latents, expected)
    assert other <= 1e-5 if height == width else other > 1e-4


def schedulers() -> dict[str, Callable[[], Any]]:
    """Each sampler as a user of diffusers would make it."""
    from diffusers.schedulers import (
        DDIMScheduler,
        DPMSolverMultistepScheduler,
        EulerDiscreteScheduler,
        LCMScheduler,
        SASolverScheduler,
        UniPCMultistepScheduler,
    )

    config = {key: value for key, value in SCHEDULER.items() if not key.startswith("_")}
    betas = {key: config[key] for key in ("beta_start", "beta_end", "beta_schedule")}
    linspace = betas | {"timestep_spacing": "linspace"}
    return {
        "dpm++-2m": lambda: DPMSolverMultistepScheduler(**config),
        "dpm++-2m-karras": lambda: DPMSolverMultistepScheduler(**config, use_karras_sigmas=True),
        "sa-solver": lambda: SASolverScheduler(**linspace),
        "ddim": lambda: DDIMScheduler(**linspace, clip_sample=False),
        "euler": lambda: EulerDiscreteScheduler(**linspace),
        "unipc": lambda: UniPCMultistepScheduler(**linspace, solver_type="bh2"),
        "lcm": lambda: LCMScheduler(**betas),
    }


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "dmd"])
def test_every_sampler_equals_that_of_diffusers(
    ours: TextToImage, theirs: Any, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(theirs, "scheduler", schedulers()[sampler]())
    if sampler == "lcm":
        ours = TextToImage(replace(ours._parts, scheduler_config=SCHEDULER | {"_class_name": "LCMScheduler"}))
    chosen = SAMPLERS[sampler]
    expected = reference(
        theirs,
        PROMPTS,
        64,
        48,
        num_inference_steps=chosen.steps,
        guidance_scale=chosen.guidance_scale,
        generator=generators(1, 2, 3),
    )
    result = ours(PROMPTS, height=64, width=48, sampler=sampler, seed=1, output="latents")
    assert relative_error(result.latents, expected) <= 1e-5


def test_one_step_of_dmd_equals_that_of_diffusers(alpha_folder: Path) -> None:
    from diffusers import DDPMScheduler

    scheduler = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear", "clip_sample": False}
    theirs = load("PixArtAlphaPipeline", alpha_folder, scheduler=DDPMScheduler(**scheduler))
    expected = reference(
        theirs,
        PROMPTS,
        64,
        48,
        num_inference_steps=1,
        timesteps=[400],
        guidance_scale=1.0,
        generator=generators(1, 2, 3),
    )
    parts = TextToImage.from_pretrained(alpha_folder)._parts
    ours = TextToImage(replace(parts, scheduler_config=scheduler | {"_class_name": "DDPMScheduler"}))
    result = ours(PROMPTS, height=64, width=48, sampler="dmd", seed=1, output="latents")
    assert relative_error(result.latents, expected) <= 1e-5


def test_in_bfloat16_our_error_is_at_most_that_of_diffusers(tiny_folder: Path, ours: TextToImage) -> None:
    """Errors are against fp32, over several seeds; the noise is one that bf16 can hold."""
    theirs = load("PixArtSigmaPipeline", tiny_folder, dtype=torch.bfloat16)
    rough = TextToImage.from_pretrained(tiny_folder, dtype="bfloat16")
    our_errors, their_errors = [], []
    for seed in range(6):
        noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(seed)).bfloat16()
        options: dict[str, Any] = {"height": 64, "width": 64, "output": "latents", "noise": noise.float()}
        exact = ours(PROMPTS[:2], **options).latents
        mine = rough(PROMPTS[:2], **options).latents
        other = reference(theirs, PROMPTS[:2], 64, 64, latents=noise).float()
        our_errors.append(float((mine - exact).square().mean().sqrt()))
        their_errors.append(float((other - exact).square().mean().sqrt()))
    assert statistics.median(our_errors) <= 1.1 * statistics.median(their_errors)
    assert min(our_errors) > 0


def official_by_hand(model: TextToImage, prompts: list[str], noise: torch.Tensor, steps: int) -> torch.Tensor:
    """The official path in plain steps: padded captions and null captions, one mask for both, fractional times."""
    from pixart_sigma.pipeline.profiles import OFFICIAL
    from pixart_sigma.pipeline.samplers import make_scheduler

    encoder, transformer = model.text_encoder, model.transformer

    def encoded(texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        ids, mask = padded(encoder, texts, 300)
        return encoder.model(ids, attention_mask=mask).last_hidden_state, mask.bool()

    latents = noise
    scheduler = make_scheduler("dpm++-2m", SCHEDULER, OFFICIAL)
    scheduler.set_timesteps(steps)
    with torch.no_grad():
        embeds, mask = encoded(prompts)
        null, _ = encoded([""] * len(prompts))
        captions = transformer.prepare_captions(torch.cat([null, embeds]), torch.cat([mask, mask]))
        for timestep in scheduler.timesteps:
            rows = transformer.prepare_timesteps(timestep[None])
            output = transformer(torch.cat([latents, latents]), captions, rows)[:, :4]
            null_noise, noise = output.chunk(2)
            guided = null_noise + 4.5 * (noise - null_noise)
            latents = scheduler.step(guided, timestep, latents, return_dict=False)[0]
    return latents


def test_the_official_profile_gives_the_null_caption_the_captions_mask(
    ours: TextToImage, tiny_folder: Path
) -> None:
    prompts = ["a red house", "a small cactus with a happy face in the desert"]
    noise = torch.randn(2, 4, 8, 6)
    official = TextToImage.from_pretrained(tiny_folder, profile="official")
    options: dict[str, Any] = {"height": 64, "width": 48, "noise": noise, "output": "latents"}
    expected = official_by_hand(ours, prompts, noise, 20)
    assert relative_error(official(prompts, **options).latents, expected) <= 1e-5
    assert relative_error(ours(prompts, **options).latents, expected) > 1e-3
