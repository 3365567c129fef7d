"""Shortcuts with a picture that two processes share: each keeps the outputs of its own band."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from comparison import relative_error
from pixart_sigma.diffusion.sampling import denoise
from pixart_sigma.diffusion.shortcuts.plan import ReuseSchedule, make_plan
from pixart_sigma.diffusion.shortcuts.reuse import reusing
from pixart_sigma.model import KVCompression, PixArtTransformer, TransformerConfig
from pixart_sigma.model import activation_memory as memory
from pixart_sigma.model.int8 import quantise_linears
from pixart_sigma.pipeline.placement.sequence import SplitTransformer
from ranks import run_ranks

STEPS, BLOCKS = 5, 3
PLAN = make_plan(STEPS, True, (0.1, 1.0), 4, ReuseSchedule.every(2, STEPS, BLOCKS), BLOCKS)


class Euler:
    """The least that sampling asks of a scheduler."""

    timesteps = torch.tensor([900, 700, 500, 300, 100])
    init_noise_sigma = 1.0

    def set_timesteps(self, num_steps: int, device: torch.device) -> None:
        assert num_steps == len(self.timesteps)

    def scale_model_input(self, latents: Tensor, timestep: Tensor) -> Tensor:
        return latents

    def step(self, prediction: Tensor, timestep: Tensor, latents: Tensor, return_dict: bool) -> tuple[Tensor]:
        return (latents - 0.3 * prediction,)


def sampled(int8: bool, shortened: bool = True) -> Tensor:
    torch.manual_seed(3)
    model = PixArtTransformer(
        TransformerConfig(
            num_layers=BLOCKS,
            num_attention_heads=2,
            attention_head_dim=12,
            caption_channels=16,
            kv_compression=KVCompression((2, 2), "average", (1, 2)),
        )
    ).eval()
    if int8:
        quantise_linears(model.transformer_blocks)
    generator = torch.Generator().manual_seed(1)
    noise, embeds = torch.randn(2, 4, 18, 10, generator=generator), torch.randn(2, 9, 16, generator=generator)
    plan = PLAN if shortened else make_plan(STEPS, True)
    with torch.no_grad(), reusing(model, plan) as before_call:
        captions = model.prepare_captions(embeds, torch.arange(9) < torch.tensor([[9], [4]]))
        negative = model.prepare_captions(torch.ones(2, 1, 16), torch.ones(2, 1))
        denoiser = SplitTransformer(model) if dist.is_initialized() else model
        return denoise(
            denoiser,
            noise,
            captions,
            negative,
            Euler(),
            STEPS,
            4.5,
            guided_steps=plan.guided,
            before_call=before_call,
        )


def on_each_process() -> list[Tensor]:
    plain = sampled(False)
    memory.MANY_ROWS, memory.PIECE_ROWS = 10, 14  # bands are cut into other pieces than the whole
    return [plain, sampled(False), sampled(True)]


def test_two_processes_make_the_picture_of_one() -> None:
    expected, quantised = sampled(False), sampled(True)
    assert relative_error(expected, sampled(False, shortened=False)) > 1e-3
    for plain, cut, int8 in run_ranks(2, on_each_process):
        assert relative_error(plain, expected) <= 1e-5
        assert relative_error(cut, expected) <= 1e-5
        # Rounding to whole numbers makes a step of what was equal to rounding.
        assert relative_error(int8, quantised) <= 0.02
