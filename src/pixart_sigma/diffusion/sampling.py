"""From noise to latents: a transformer, a diffusers scheduler and classifier-free guidance.

Legend: B batch, C latent channels, S steps, M kept tokens.
Pure functions: the scheduler, which remembers its steps, is copied. Knows nothing of prompts, pixels or
seeds, and does not draw the initial noise.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from pixart_sigma.diffusion.token_discard import draw_kept_tokens
from pixart_sigma.errors import InvalidInput
from pixart_sigma.model import Captions, Timesteps, TransformerConfig


class Denoiser(Protocol):
    """What sampling asks of a model; `PixArtTransformer` has it, compiled or not."""

    @property
    def config(self) -> TransformerConfig: ...

    def prepare_timesteps(
        self, timesteps: Tensor, image_size: Tensor | None, aspect_ratio: Tensor | None
    ) -> Timesteps: ...

    def __call__(
        self, latents: Tensor, captions: Captions, timesteps: Timesteps, kept_tokens: Tensor | None
    ) -> Tensor: ...


@dataclass(frozen=True)
class Step:
    """What there is after a step of sampling: `done` of `total` steps, the last one from `timestep`.

    latents (B, C, H, W) are as the scheduler holds them, noised still: to be read, not written to.
    """

    done: int
    total: int
    timestep: float
    latents: Tensor


OnStep = Callable[[Step], bool | None]
"""Called after each step. False stops the sampling; its result is then the latents so far."""
Branch = Literal["negative", "positive"]
Branches = tuple[Branch, ...]
NEGATIVE: Branch = "negative"
POSITIVE: Branch = "positive"
BeforeCall = Callable[[int, Branches], object]
"""Told of each call of the model, before it: the step, from 0, and the branches of guidance in its batch, in order."""


def guide(negative: Tensor, positive: Tensor, guidance_scale: float) -> Tensor:
    """Classifier-free guidance: negative + scale · (positive - negative), on every channel."""
    return negative + guidance_scale * (positive - negative)


def denoise(
    model: Denoiser,
    noise: Tensor,
    captions: Captions,
    negative_captions: Captions | None,
    scheduler: Any,
    num_steps: int,
    guidance_scale: float,
    *,
    image_size: Tensor | None = None,
    aspect_ratio: Tensor | None = None,
    branches_together: bool = True,
    guided_steps: Sequence[bool] | None = None,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    before_call: BeforeCall | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """noise (B, C, H, W) of unit variance → latents (B, C, H, W), scaled, fp32.

    scheduler: any diffusers scheduler; its configuration says what the model predicts (`prediction_type`).
    guidance_scale ≤ 1 leaves the negative branch out, captions and all; the official null branch and
    diffusers' own differ only in the negative captions given here. A learned variance in the model's output
    is not used.
    image_size (1, 2) and aspect_ratio (1, 1): for micro-conditioning.
    branches_together: the two branches of guidance as one batch; else one after the other, which takes half the
    memory and is equal to rounding. guided_steps: for each step whether it is guided, by default all; at the others
    the positive branch alone is computed.
    generator: for schedulers that add noise and for random discard; one per sample makes a sample
    independent of its batch. before_call: for what is put onto the model from outside. on_step: called after each of
    the scheduler's steps, and may stop.
    Raises InvalidInput for a batch that does not match its captions, num_steps < 1, guidance that is not
    finite, guidance without negative captions, guided_steps of another number than the scheduler has, random discard
    without a generator.
    """
    if num_steps < 1:
        raise InvalidInput(f"num_steps is {num_steps}; at least 1 is needed (20 is usual)")
    if not math.isfinite(guidance_scale):
        raise InvalidInput(f"guidance_scale is {guidance_scale}; it must be a finite number (4.5 is usual)")
    guided = guidance_scale > 1
    if guided and negative_captions is None:
        raise InvalidInput(f"guidance_scale {guidance_scale} needs negative captions; encode an empty prompt")
    batch, channels = noise.shape[:2]
    for given in (captions, negative_captions) if guided else (captions,):
        if given is not None and len(given) != batch:
            raise InvalidInput(f"{len(given)} captions for {batch} latents; there must be one for each")
    grid = (noise.shape[2] // model.config.patch_size, noise.shape[3] // model.config.patch_size)
    compression = model.config.kv_compression
    discards = compression is not None and compression.operator == "discard" and compression.applies(grid)
    if discards and generator is None:
        raise InvalidInput("operator 'discard' draws tokens at random; give denoise a generator")

    scheduler = copy.deepcopy(scheduler)
    scheduler.set_timesteps(num_steps, device=noise.device)
    step_options: dict[str, Any] = {}
    if generator is not None and "generator" in inspect.signature(scheduler.step).parameters:
        step_options["generator"] = generator if isinstance(generator, torch.Generator) else list(generator)

    with torch.no_grad():
        guided_calls = alone = [_Call((POSITIVE,), captions)]
        if guided and negative_captions is not None:
            guided_calls = [_Call((NEGATIVE,), negative_captions), *alone]
            if branches_together:
                both = Captions.concat([negative_captions, captions])
                guided_calls, alone = [_Call((NEGATIVE, POSITIVE), both)], [_second_half(both)]
        # What was put together is another copy; whoever gave these may not hold them either.
        del captions, negative_captions
        schedule = model.prepare_timesteps(scheduler.timesteps, image_size, aspect_ratio)
        latents = noise.float() * scheduler.init_noise_sigma
        total = len(scheduler.timesteps)
        if guided_steps is not None and len(guided_steps) != total:
            raise InvalidInput(
                f"guided_steps has {len(guided_steps)} for the scheduler's {total}; give as many"
            )
        times = scheduler.timesteps.tolist()  # at once: on a GPU each would be waited for
        for index, timestep in enumerate(scheduler.timesteps):
            kept_tokens = None
            if discards and compression is not None and generator is not None:
                kept_tokens = draw_kept_tokens(grid, compression.window, generator).to(noise.device)
            model_input = scheduler.scale_model_input(latents, timestep)
            calls = guided_calls if guided_steps is None or guided_steps[index] else alone
            predictions = []
            for branches, given in calls:
                if before_call is not None:
                    before_call(index, branches)
                inputs, kept = _for_each(branches, model_input, kept_tokens)
                predictions.append(model(inputs, given, schedule[index], kept)[:, :channels].float())
            prediction = torch.cat(predictions)
            if len(prediction) > batch:
                negative, positive = prediction.chunk(2)
                prediction = guide(negative, positive, guidance_scale)
            latents = scheduler.step(prediction, timestep, latents, return_dict=False, **step_options)[0]
            if on_step is not None and on_step(Step(index + 1, total, float(times[index]), latents)) is False:
                break
    return latents


class _Call(NamedTuple):
    """Of the model, at a step: the branches in its batch, and their captions."""

    branches: Branches
    captions: Captions


def _second_half(both: Captions) -> _Call:
    """The positive branch of both as one batch: the same memory, no copy."""
    half = slice(len(both) // 2, None)
    mask = None if both.mask is None else both.mask[half]
    return _Call((POSITIVE,), Captions(both.keys[:, half], both.values[:, half], mask))


def _for_each(
    branches: Branches, latents: Tensor, kept_tokens: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Latents (B, C, H, W) and kept tokens (M,) or (B, M), once for each branch in a batch."""
    if len(branches) == 1:
        return latents, kept_tokens
    if kept_tokens is not None and kept_tokens.ndim == 2:
        kept_tokens = torch.cat([kept_tokens] * len(branches))
    return torch.cat([latents] * len(branches)), kept_tokens
