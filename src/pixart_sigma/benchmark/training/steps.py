"""One training step on cached features, ours and the plain one; both in bf16 on fp32 weights, AdamW, clipped at 1.

The plain one is what a user would write with diffusers' transformer, torch's AdamW and accelerate: captions padded to
300 tokens, the noise's squared error. Ours is the trainer's objective, with the variance's bound in the loss. Both
start from the same weights.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from pixart_sigma.benchmark.inference.switches import pad_captions
from pixart_sigma.benchmark.training.scenarios import Features, Scenario
from pixart_sigma.benchmark.training.switches import Switches, attention
from pixart_sigma.diffusion.schedule import linear_schedule
from pixart_sigma.errors import MissingDependency
from pixart_sigma.model import PixArtTransformer

LEARNING_RATE = 2e-5
GRADIENT_CLIP = 1.0

Step = Callable[[], float]
"""Does one training step and returns the noise's squared error before it."""


def load_libraries(side: str) -> None:
    """Import what a side needs, so that its memory can be told from the step's. Raises MissingDependency."""
    if side == "ours":
        import pixart_sigma.training.optimizers
        import pixart_sigma.training.parallel
        import pixart_sigma.training.tasks.transformer.objective  # noqa: F401

        return
    try:
        import accelerate  # type: ignore[import-untyped]  # noqa: F401
    except ImportError as error:
        raise MissingDependency(
            "the plain loop of suite train-step needs accelerate; install it: pip install accelerate"
        ) from error
    from diffusers import PixArtTransformer2DModel  # noqa: F401


def our_step(scenario: Scenario, features: Features, device: torch.device, switches: Switches) -> Step:
    """A step as the trainer makes it."""
    from pixart_sigma.model.compilation import compile_blocks
    from pixart_sigma.training.optimizers import build_optimizers
    from pixart_sigma.training.recipe.process import OptimizerRecipe
    from pixart_sigma.training.recipe.transformer import ObjectiveRecipe
    from pixart_sigma.training.tasks.transformer.objective import (
        CaptionTokens,
        TransformerBatch,
        TransformerObjective,
    )

    transformer = _first_weights(scenario).to(device)
    schedule = linear_schedule().to(device)
    model = TransformerObjective(transformer, None, ObjectiveRecipe(), schedule)
    if switches.compiled:
        compile_blocks(transformer.transformer_blocks)
    weights = list(model.parameters())
    if switches.fused_optimizer:
        optimizers = build_optimizers(
            model, OptimizerRecipe(kind="adamw", learning_rate=LEARNING_RATE, betas=(0.9, 0.999))
        )
    else:
        optimizers = [torch.optim.AdamW(weights, lr=LEARNING_RATE, weight_decay=0.0)]
    longest = max(features.num_caption_tokens)
    states, mask = features.states[:, :longest], features.mask[:, :longest]
    if switches.padded_captions:
        pad_captions(transformer)
    batch = TransformerBatch(
        latents=features.latents.to(device),
        noise=features.noise.to(device),
        timesteps=features.timesteps.to(device),
        weights=torch.full((scenario.batch_size,), 1 / scenario.batch_size, device=device),
        captions=CaptionTokens(mask=mask.to(device), states=states.to(device)),
    )

    def step() -> float:
        with torch.autocast(device.type, dtype=torch.bfloat16), attention(switches.attention):
            terms = model(batch)
        terms["loss"].backward()
        nn.utils.clip_grad_norm_(weights, GRADIENT_CLIP, foreach=True)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return float(terms["mse"].detach())

    return step


def plain_step(scenario: Scenario, features: Features, device: torch.device) -> Step:
    """A step as in a script with diffusers and accelerate."""
    from accelerate import Accelerator
    from diffusers import PixArtTransformer2DModel

    config = scenario.config
    model = PixArtTransformer2DModel(
        num_layers=config.num_layers,
        num_attention_heads=config.num_attention_heads,
        attention_head_dim=config.attention_head_dim,
        cross_attention_dim=config.width,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        patch_size=config.patch_size,
        sample_size=config.sample_size,
        caption_channels=config.caption_channels,
        interpolation_scale=config.interpolation_scale,
        use_additional_conditions=False,
    )
    missing, unexpected = model.load_state_dict(_first_weights(scenario).state_dict(), strict=False)
    assert not unexpected, unexpected
    assert all("pos_embed" in name for name in missing), missing
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    accelerator = Accelerator(mixed_precision="bf16", cpu=device.type == "cpu")
    model, optimizer = accelerator.prepare(model, optimizer)
    schedule = linear_schedule().to(device)
    latents, noise = features.latents.to(device), features.noise.to(device)
    timesteps, states, mask = (
        part.to(device) for part in (features.timesteps, features.states, features.mask)
    )

    def step() -> float:
        noised = schedule.add_noise(latents, noise, timesteps)
        output = model(
            noised,
            encoder_hidden_states=states,
            encoder_attention_mask=mask,
            timestep=timesteps,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        ).sample
        prediction = output.chunk(2, dim=1)[0] if config.out_channels > config.in_channels else output
        loss = nn.functional.mse_loss(prediction.float(), noise)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), GRADIENT_CLIP)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


def _first_weights(scenario: Scenario) -> PixArtTransformer:
    model = PixArtTransformer(scenario.config)
    generator = torch.Generator().manual_seed(0)
    model.initialise_weights(generator=generator)
    # A fresh model's output is zero, which would hide a difference between the two.
    nn.init.normal_(model.proj_out.weight, std=0.02, generator=generator)
    for block in model.transformer_blocks:
        nn.init.normal_(block.attn2.to_out[0].weight, std=0.02, generator=generator)
    return model
