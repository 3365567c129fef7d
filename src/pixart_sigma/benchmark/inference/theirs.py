"""The other side: diffusers and transformers, as diffusers' own pipeline calls them, captions padded to 300 tokens.

Legend: B batch, C latent channels, h, w latents, L caption tokens, E caption channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pixart_sigma.benchmark.inference.scenarios import PROMPT_TOKENS, TIMESTEP, Work, draw_inputs, prompts
from pixart_sigma.benchmark.inference.stopwatch import Stopwatch
from pixart_sigma.benchmark.inference.work import Builder, Compute, Job, Outputs
from pixart_sigma.pipeline.samplers import DEFAULT_GUIDANCE_SCALE


def load_libraries(work: Work) -> None:
    """Import what loading will need, so that its memory can be told from the work's."""
    from diffusers import AutoencoderKL, PixArtTransformer2DModel  # noqa: F401

    if work in ("picture", "text"):
        from diffusers import DPMSolverMultistepScheduler, PixArtSigmaPipeline  # noqa: F401
        from transformers import AutoTokenizer, T5EncoderModel  # noqa: F401


def _forward(job: Job, watch: Stopwatch) -> Compute:
    """All of it is stage forward: nothing is prepared apart."""
    from diffusers import PixArtTransformer2DModel

    model = PixArtTransformer2DModel.from_pretrained(
        job.folder / "transformer", dtype=job.dtype, local_files_only=True
    ).to(job.device)
    inputs = draw_inputs(job.scenario)
    latents = inputs.latents.to(job.device, job.dtype).repeat(2, 1, 1, 1)
    embeds, mask = inputs.embeds.to(job.device, job.dtype), inputs.mask.to(job.device).long()
    timesteps = torch.full((len(latents),), TIMESTEP, device=job.device)
    if job.compiled:
        model.compile()
    forward = watch.watched("forward", model)

    def compute() -> Outputs:
        (prediction,) = forward(
            latents,
            encoder_hidden_states=embeds,
            encoder_attention_mask=mask,
            timestep=timesteps,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            return_dict=False,
        )
        return {"prediction": prediction}

    return compute


def _picture(job: Job, watch: Stopwatch) -> Compute:
    from diffusers import PixArtSigmaPipeline

    pipeline = PixArtSigmaPipeline.from_pretrained(job.folder, dtype=job.dtype, local_files_only=True).to(
        job.device
    )
    pipeline.set_progress_bar_config(disable=True)
    if job.compiled:
        pipeline.transformer.compile()
    noise = draw_inputs(job.scenario).latents.to(job.dtype)
    outputs: Outputs = {}
    decode_latents = pipeline.vae.decode

    def decode(latents: Tensor, **options: Any) -> Any:
        decoded = decode_latents(latents, **options)
        outputs["latents"], outputs["pixels"] = latents * pipeline.vae.config.scaling_factor, decoded[0]
        return decoded

    pipeline.encode_prompt = watch.watched("text", pipeline.encode_prompt)
    pipeline.vae.decode = watch.watched("decode", decode)

    def compute() -> Outputs:
        outputs.clear()
        pipeline(
            prompts(job.scenario.batch),
            height=job.scenario.side,
            width=job.scenario.side,
            num_inference_steps=job.num_steps,
            guidance_scale=DEFAULT_GUIDANCE_SCALE,
            latents=noise,
            clean_caption=False,
            use_resolution_binning=False,
        )
        return outputs

    return compute


def _decode(job: Job, watch: Stopwatch) -> Compute:
    model, scaling_factor = _autoencoder(job)
    latents = draw_inputs(job.scenario).latents.to(job.device, job.dtype)
    return lambda: {"pixels": model.decode(latents / scaling_factor, return_dict=False)[0]}


def _encode(job: Job, watch: Stopwatch) -> Compute:
    model, scaling_factor = _autoencoder(job)
    pixels = draw_inputs(job.scenario).pixels.to(job.device, job.dtype)
    return lambda: {"latents": model.encode(pixels).latent_dist.mode() * scaling_factor}


def _autoencoder(job: Job) -> tuple[Any, float]:
    from diffusers import AutoencoderKL

    model = AutoencoderKL.from_pretrained(job.folder / "vae", dtype=job.dtype, local_files_only=True)
    return model.to(job.device), model.config.scaling_factor


def _text(job: Job, watch: Stopwatch) -> Compute:
    """Through the pipeline's own method: tokenizer and encoder for the prompts, then for as many empty ones."""
    from diffusers import PixArtSigmaPipeline
    from transformers import AutoTokenizer, T5EncoderModel

    tokenizer = AutoTokenizer.from_pretrained(
        job.folder / "tokenizer", local_files_only=True, trust_remote_code=False
    )
    encoder = T5EncoderModel.from_pretrained(
        job.folder / "text_encoder", dtype=job.dtype, local_files_only=True
    ).to(job.device)
    pipeline = PixArtSigmaPipeline(tokenizer, encoder, vae=None, transformer=None, scheduler=None)

    def compute() -> Outputs:
        embeds, _, negative, _ = pipeline.encode_prompt(
            prompts(job.scenario.batch), True, negative_prompt="", device=job.device, clean_caption=False
        )
        return {"prompt": embeds[:, :PROMPT_TOKENS], "negative": negative[:1, :1]}

    return compute


BUILDERS: Mapping[Work, Builder] = {
    "forward": _forward,
    "step": _forward,
    "picture": _picture,
    "decode": _decode,
    "encode": _encode,
    "text": _text,
}
