"""One picture on several processes, here gloo's on the CPU, equal to one process."""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist

from comparison import relative_error
from pixart_sigma.diffusion.sampling import denoise
from pixart_sigma.errors import InvalidInput, PixArtSigmaError
from pixart_sigma.model import KVCompression, PixArtTransformer, TransformerConfig
from pixart_sigma.model import activation_memory as memory
from pixart_sigma.pipeline.placement.sequence import SplitTransformer, bands_of
from ranks import run_ranks

HEIGHTS_AND_WIDTHS = [(24, 12), (18, 10), (22, 14)]  # latents: 12x6, 9x5 and 11x7 tokens
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "qk_norm": {"qk_norm": True},
    "conv": {"kv_compression": KVCompression((2, 2), "conv", (1, 2))},
    "average": {"kv_compression": KVCompression((3, 2), "average", (0, 2))},
    "nearest": {"kv_compression": KVCompression((2, 3), "nearest", (1,))},
    # Of the three sizes the first and the last are compressed; no band is that large.
    "from_tokens": {"kv_compression": KVCompression((2, 2), "conv", (1,), from_tokens=60)},
}


def make(**options: Any) -> PixArtTransformer:
    torch.manual_seed(3)
    sizes = {"num_layers": 3, "num_attention_heads": 3, "attention_head_dim": 8, "caption_channels": 16}
    return PixArtTransformer(TransformerConfig(**(sizes | options))).eval()


def inputs(model: PixArtTransformer, height: int, width: int) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(height)
    mask = torch.arange(9) < torch.tensor([[9], [4]])
    captions = model.prepare_captions(torch.randn(2, 9, 16, generator=generator), mask)
    latents = torch.randn(2, 4, height, width, generator=generator)
    return latents, captions, model.prepare_timesteps(torch.tensor([600.0]))


class Euler:
    """The least that sampling asks of a scheduler."""

    timesteps = torch.tensor([900, 500, 100])
    init_noise_sigma = 1.0

    def set_timesteps(self, num_steps: int, device: torch.device) -> None:
        assert num_steps == len(self.timesteps)

    def scale_model_input(self, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return latents

    def step(
        self, prediction: torch.Tensor, timestep: torch.Tensor, latents: torch.Tensor, return_dict: bool
    ) -> tuple[torch.Tensor]:
        return (latents - 0.3 * prediction,)


def sampled() -> torch.Tensor:
    model = make(kv_compression=KVCompression((2, 2), "average", (1, 2)))
    noise, captions, _ = inputs(model, 18, 10)
    denoiser = SplitTransformer(model) if dist.is_initialized() else model
    return denoise(denoiser, noise, captions, captions, Euler(), 3, 4.5)


def split_predictions(cut: bool) -> dict[str, list[torch.Tensor]]:
    if cut:
        memory.MANY_ROWS, memory.PIECE_ROWS = 10, 14
    predictions = {}
    with torch.no_grad():
        for name, options in VARIANTS.items():
            model = make(**options)
            split = SplitTransformer(model)
            predictions[name] = [split(*inputs(model, *size)) for size in HEIGHTS_AND_WIDTHS]
            assert "positions" not in vars(model)
            assert "keys_and_values" not in vars(model.transformer_blocks[0].attn1)
    return predictions | {"sampled": [sampled()]}


@pytest.mark.parametrize(("world", "cut"), [(2, False), (3, True)])
def test_split_equals_one_process(world: int, cut: bool) -> None:
    by_rank = run_ranks(world, split_predictions, cut)
    with torch.no_grad():
        for name, options in VARIANTS.items():
            model = make(**options)
            for index, size in enumerate(HEIGHTS_AND_WIDTHS):
                expected = model(*inputs(model, *size))
                for rank in range(world):
                    assert relative_error(by_rank[rank][name][index], expected) <= 1e-5, (name, size, rank)
                    assert torch.equal(by_rank[rank][name][index], by_rank[0][name][index])
    expected = sampled()
    for predictions in by_rank:
        assert relative_error(predictions["sampled"][0], expected) <= 1e-5


def lose_the_other(kill: bool) -> tuple[str, float]:
    """Rank 1 ends, or sleeps beyond the timeout; what rank 0 is told, and after how long."""
    group = dist.new_group(timeout=timedelta(seconds=3))
    model = make()
    latents, captions, timesteps = inputs(model, 18, 10)
    if dist.get_rank() == 1:
        if kill:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(8)
        return "", 0.0
    started = time.monotonic()
    try:
        SplitTransformer(model, group)(latents, captions, timesteps)
    except PixArtSigmaError as error:
        told = str(error)
    else:
        told = "nothing"
    waited = time.monotonic() - started
    if kill:  # nobody is left to meet
        os._exit(0 if "another process of this picture failed" in told and waited < 30 else 3)
    return told, waited


def test_a_process_that_does_not_answer_is_waited_for_until_the_timeout() -> None:
    told, waited = run_ranks(2, lose_the_other, False)[0]
    assert "another process of this picture failed or does not answer" in told
    assert "\n" not in told
    assert 2 < waited < 7.5


@pytest.mark.slow
def test_a_process_that_dies_ends_the_others() -> None:
    with pytest.raises(AssertionError, match=r"ranks \[1\] failed with \[-9\]"):
        run_ranks(2, lose_the_other, True)


@pytest.mark.parametrize("window_height", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_bands_are_whole_windows_and_even(window_height: int, count: int) -> None:
    for num_rows in range(1, 40):
        num_windows = -(-num_rows // window_height)
        if num_windows < count:
            with pytest.raises(InvalidInput, match=f"at most {num_windows} .--nproc-per-node {num_windows}"):
                bands_of(num_rows, window_height, count)
            continue
        bands = bands_of(num_rows, window_height, count)
        assert [row for band in bands for row in band] == list(range(num_rows))
        assert all(band.start % window_height == 0 and len(band) for band in bands)
        in_windows = [-(-len(band) // window_height) for band in bands]
        assert max(in_windows) - min(in_windows) <= 1


def test_random_discard_is_refused() -> None:
    model = make(kv_compression=KVCompression((2, 2), "discard", (1,)))
    with pytest.raises(InvalidInput, match=r"'discard'.*use another operator"):
        SplitTransformer(model)
