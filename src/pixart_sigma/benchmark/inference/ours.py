"""This package's side: the library as its users call it.

Legend: B batch, C latent channels, h, w latents, L caption tokens, E caption channels.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pixart_sigma.benchmark.inference.scenarios import TIMESTEP, Work, draw_inputs, prompts
from pixart_sigma.benchmark.inference.stopwatch import Stopwatch
from pixart_sigma.benchmark.inference.switches import CAPTIONS_ONCE, switch_off, switch_off_in_transformer
from pixart_sigma.benchmark.inference.work import Builder, Compute, Job, Outputs
from pixart_sigma.encoders.autoencoder import Autoencoder
from pixart_sigma.encoders.strips.coding import OnProgress
from pixart_sigma.encoders.text import TextEncoder
from pixart_sigma.model import PixArtTransformer
from pixart_sigma.pipeline.device import DTYPES
from pixart_sigma.pipeline.memory.run import import_libraries
from pixart_sigma.pipeline.samplers import DEFAULT_GUIDANCE_SCALE, DEFAULT_SAMPLER
from pixart_sigma.pipeline.text_to_image import TextToImage
from pixart_sigma.weights.transformer import load_transformer


def load_libraries(work: Work) -> None:
    """Import what loading will need, so that its memory can be told from the work's: what is not imported above."""
    import_libraries(None, DEFAULT_SAMPLER)


def _forward(job: Job, watch: Stopwatch) -> Compute:
    """Stage prepare is what sampling does once a prompt and once a schedule; forward is what it does every step."""
    model, latents, embeds, mask, timesteps = _transformer(job)
    prepare_captions = watch.watched("prepare", model.prepare_captions)
    prepare_timesteps = watch.watched("prepare", model.prepare_timesteps)
    forward = watch.watched("forward", model)

    def compute() -> Outputs:
        captions = prepare_captions(embeds, mask)
        return {"prediction": forward(latents, captions, prepare_timesteps(timesteps))}

    return compute


def _step(job: Job, watch: Stopwatch) -> Compute:
    """What is prepared once a prompt and once a schedule is prepared here, unless that is switched off."""
    model, latents, embeds, mask, timesteps = _transformer(job)
    with torch.no_grad():
        captions, schedule = model.prepare_captions(embeds, mask), model.prepare_timesteps(timesteps)
        if CAPTIONS_ONCE in job.off:
            # The first of the steps, which has no need to project again.
            model(latents, captions, schedule[0])
    return lambda: {"prediction": model(latents, captions, schedule[0])}


def _transformer(job: Job) -> tuple[PixArtTransformer, Tensor, Tensor, Tensor, Tensor]:
    """The model and what goes in: latents (2 B, C, h, w), embeds (2 B, L, E), mask (2 B, L), timesteps (1,)."""
    model = load_transformer(job.folder / "transformer", job.dtype).to(job.device)
    switch_off_in_transformer(model, job.off)
    if job.compiled:
        from pixart_sigma.model.compilation import compile_blocks

        compile_blocks(model.transformer_blocks)
    inputs = draw_inputs(job.scenario)
    latents = inputs.latents.to(job.device, job.dtype).repeat(2, 1, 1, 1)
    embeds, mask = inputs.embeds.to(job.device, job.dtype), inputs.mask.to(job.device)
    return model, latents, embeds, mask, torch.tensor([TIMESTEP], device=job.device)


def _picture(job: Job, watch: Stopwatch) -> Compute:
    (dtype,) = (name for name, dtype in DTYPES.items() if dtype == job.dtype)
    model = TextToImage.from_pretrained(
        job.folder, dtype=dtype, device=str(job.device), compiled=job.compiled
    )
    switch_off(model, job.off)
    noise = draw_inputs(job.scenario).latents.to(job.dtype).float()
    decoded: list[tuple[Tensor, Tensor]] = []
    decode_latents = model.autoencoder.decode

    def decode(latents: Tensor, on_progress: OnProgress | None = None) -> Tensor:
        decoded.append((latents, decode_latents(latents, on_progress)))
        return decoded[-1][1]

    text_encoder = model.text_encoder
    text_encoder.encode_groups = watch.watched("text", text_encoder.encode_groups)  # type: ignore[method-assign]
    model.autoencoder.decode = watch.watched("decode", decode)  # type: ignore[method-assign]

    def compute() -> Outputs:
        decoded.clear()
        model(
            prompts(job.scenario.batch),
            height=job.scenario.side,
            width=job.scenario.side,
            num_steps=job.num_steps,
            guidance_scale=DEFAULT_GUIDANCE_SCALE,
            noise=noise,
        )
        latents, pixels = zip(*decoded, strict=True)  # picture by picture
        return {"latents": torch.cat(latents), "pixels": torch.cat(pixels)}

    return compute


def _decode(job: Job, watch: Stopwatch) -> Compute:
    autoencoder = Autoencoder.from_pretrained(job.folder, job.dtype).to(job.device)
    latents = draw_inputs(job.scenario).latents.to(job.device, job.dtype)
    return lambda: {"pixels": autoencoder.decode(latents)}


def _encode(job: Job, watch: Stopwatch) -> Compute:
    autoencoder = Autoencoder.from_pretrained(job.folder, job.dtype).to(job.device)
    pixels = draw_inputs(job.scenario).pixels.to(job.device, job.dtype)
    return lambda: {"latents": autoencoder.encode(pixels)}


def _text(job: Job, watch: Stopwatch) -> Compute:
    encoder = TextEncoder.from_pretrained(job.folder, job.dtype).to(job.device)

    def compute() -> Outputs:
        # As pipelines ask: both at once.
        (embeddings, _), (negative, _) = encoder.encode_groups([prompts(job.scenario.batch), [""]])
        return {"prompt": embeddings, "negative": negative}

    return compute


BUILDERS: Mapping[Work, Builder] = {
    "forward": _forward,
    "step": _step,
    "picture": _picture,
    "decode": _decode,
    "encode": _encode,
    "text": _text,
}
