"""Suite attention: torch's fused kernel beside the other ways that the package has, in turns.

In training, forward and backward, that is attention written out; in inference on a CPU in bf16, tiles. The rules in
`model/attention.py` and `tiled_attention.py` rest on this. Heads and tokens are those of the scenarios; captions are
attended with a mask. The median round counts.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from pixart_sigma import tiled_attention
from pixart_sigma.benchmark.serving import seconds_now
from pixart_sigma.benchmark.table import Row
from pixart_sigma.benchmark.training.scenarios import LONGEST_CAPTION, SHORTEST_CAPTION
from pixart_sigma.model.attention import written_out

Inputs = tuple[Tensor, Tensor, Tensor, Tensor | None]
"""Queries (B, heads, N, head dim), keys and values (B, heads, M, head dim), mask (B, 1, 1, M) bool."""
Way = Callable[..., Tensor]

_HEADS = ((4, 64), (16, 72))  # the pocket model's and XL/2's
_TRAINED = ((64, 32), (256, 8), (1024, 2), (4096, 1))  # image tokens, and pictures at once
_DRAWN = ((256, 2), (1024, 2), (4096, 2))  # both branches of guidance
_CAPTION_TOKENS = 176  # the longest caption of the scenarios, padded to a multiple of 16
_SHORT_CAPTION_TOKENS = 48


def attention(device: torch.device, rounds: int, say: Callable[[str], None]) -> Iterator[Row]:
    """A row for each dtype, shape and kind, in training and then in inference; "time" is the other way's over the fused
    kernel's, so above 1 that kernel is faster. "Errors" are root mean squares, relative to attention in fp32.
    """
    for dtype in (torch.bfloat16, torch.float32):
        for heads in _HEADS:
            for tokens, batch in _TRAINED:
                for length in (tokens, _CAPTION_TOKENS):
                    say(f"training, {dtype}, {heads[0]} heads of {heads[1]}, {tokens} to {length} tokens")
                    inputs = _inputs(batch, heads, tokens, length, dtype, device)
                    ways = F.scaled_dot_product_attention, written_out
                    yield _row("training", "written out", inputs, ways, rounds)
    if device.type != "cpu" or not tiled_attention.MULTIPLIES_BF16:
        return
    for heads in _HEADS:
        for tokens, batch in _DRAWN:
            for length in (tokens, _CAPTION_TOKENS, _SHORT_CAPTION_TOKENS):
                say(f"inference, {heads[0]} heads of {heads[1]}, {tokens} to {length} tokens")
                inputs = _inputs(batch, heads, tokens, length, torch.bfloat16, device)
                ways = F.scaled_dot_product_attention, tiled_attention.attend_in_tiles
                with torch.no_grad():
                    row = _row("inference", "in tiles", inputs, ways, rounds)
                yield row


def _inputs(
    batch: int, heads: tuple[int, int], tokens: int, length: int, dtype: torch.dtype, device: torch.device
) -> Inputs:
    """In memory as (B, N, D), as the model makes them."""

    def drawn(num: int) -> Tensor:
        flat = torch.randn(batch, num, heads[0] * heads[1], device=device, dtype=dtype)
        return flat.unflatten(-1, heads).transpose(1, 2).detach().requires_grad_()

    mask = None
    if length == _CAPTION_TOKENS:
        lengths = torch.linspace(SHORTEST_CAPTION, LONGEST_CAPTION, batch + 2, device=device)[1:-1]
        mask = (torch.arange(length, device=device) < lengths[:, None])[:, None, None]
    return drawn(tokens), drawn(length), drawn(length), mask


def _row(kind: str, way: str, inputs: Inputs, ways: tuple[Way, Way], rounds: int) -> Row:
    queries, keys = inputs[:2]
    fused, other = _times(inputs, ways, rounds)
    errors = _errors(inputs, ways) if queries.dtype == torch.bfloat16 else (None, None)
    return {
        "for": kind,
        "dtype": str(queries.dtype).removeprefix("torch."),
        "heads": f"{queries.shape[1]} x {queries.shape[3]}",
        "tokens": queries.shape[2],
        "keys": keys.shape[2],
        "fused ms": 1000 * fused,
        "other way": way,
        "its ms": 1000 * other,
        "time": other / fused,
        "fused error": errors[0],
        "its error": errors[1],
    }


def _times(inputs: Inputs, ways: tuple[Way, Way], rounds: int) -> tuple[float, float]:
    """Backwards too, where gradients are wanted."""
    seconds: list[list[float]] = [[], []]
    device = inputs[0].device
    for number in range(rounds + 1):
        for way, times in list(zip(ways, seconds, strict=True))[:: -1 if number % 2 else 1]:
            started = seconds_now(device)
            attended = way(*inputs)
            if attended.requires_grad:
                attended.backward(torch.ones_like(attended))
            times.append(seconds_now(device) - started)
            for given in inputs[:3]:
                given.grad = None
    fused, other = (statistics.median(times[1:]) for times in seconds)  # the first warms up
    return fused, other


@torch.no_grad()
def _errors(inputs: Inputs, ways: tuple[Way, Way]) -> tuple[str, str]:
    queries, keys, values, mask = inputs
    exact = F.scaled_dot_product_attention(queries.float(), keys.float(), values.float(), attn_mask=mask)
    one, other = (f"{(way(*inputs) - exact).norm() / exact.norm():.1e}" for way in ways)
    return one, other
