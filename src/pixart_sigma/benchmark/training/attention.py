"""Suite attention: the fused kernel beside attention written out, forward and backward, in turns.

The median round counts. The rule in `model/attention.py` rests on this. Heads and tokens are those of the scenarios;
captions are attended with a mask, as in training.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from pixart_sigma.benchmark.serving import seconds_now
from pixart_sigma.benchmark.table import Row
from pixart_sigma.benchmark.training.scenarios import LONGEST_CAPTION, SHORTEST_CAPTION
from pixart_sigma.model.attention import written_out

_HEADS = ((4, 64), (16, 72))  # the pocket model's and XL/2's
_TOKENS = ((64, 32), (256, 8), (1024, 2), (4096, 1))  # image tokens, and pictures at once
_CAPTION_TOKENS = 176  # the longest caption of the scenarios, padded to a multiple of 16


def attention(device: torch.device, rounds: int, say: Callable[[str], None]) -> Iterator[Row]:
    """A row for each dtype, shape and kind; "plain / fused" above 1 means that the fused kernel is faster."""
    for dtype in (torch.bfloat16, torch.float32):
        for heads, head_dim in _HEADS:
            for tokens, batch in _TOKENS:
                say(f"{str(dtype).removeprefix('torch.')}, {heads} heads of {head_dim}, {tokens} tokens")
                for kind in ("self", "cross"):
                    queries = _heads(batch, tokens, heads, head_dim, dtype, device)
                    length = tokens if kind == "self" else _CAPTION_TOKENS
                    keys = _heads(batch, length, heads, head_dim, dtype, device)
                    values = _heads(batch, length, heads, head_dim, dtype, device)
                    mask = _mask(batch, device) if kind == "cross" else None
                    fused, plain = _times(queries, keys, values, mask, device, rounds)
                    yield {
                        "dtype": str(dtype).removeprefix("torch."),
                        "heads": f"{heads} x {head_dim}",
                        "tokens": tokens,
                        "kind": kind,
                        "fused ms": 1000 * fused,
                        "plain ms": 1000 * plain,
                        "plain / fused": plain / fused,
                    }


def _heads(
    batch: int, tokens: int, heads: int, head_dim: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """(B, heads, N, head dim) in memory as (B, N, D), as the model makes them."""
    flat = torch.randn(batch, tokens, heads * head_dim, device=device, dtype=dtype, requires_grad=True)
    return flat.unflatten(-1, (heads, head_dim)).transpose(1, 2).detach().requires_grad_()


def _mask(batch: int, device: torch.device) -> Tensor:
    lengths = torch.linspace(SHORTEST_CAPTION, LONGEST_CAPTION, batch + 2, device=device)[1:-1]
    return (torch.arange(_CAPTION_TOKENS, device=device) < lengths[:, None])[:, None, None]


def _times(
    queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, device: torch.device, rounds: int
) -> tuple[float, float]:
    ways: list[Callable[..., Tensor]] = [F.scaled_dot_product_attention, written_out]
    seconds: list[list[float]] = [[], []]
    for number in range(rounds + 1):
        for way, times in list(zip(ways, seconds, strict=True))[:: -1 if number % 2 else 1]:
            started = seconds_now(device)
            attended = way(queries, keys, values, mask)
            attended.backward(torch.ones_like(attended))
            times.append(seconds_now(device) - started)
            queries.grad = keys.grad = values.grad = None
    fused, plain = (statistics.median(times[1:]) for times in seconds)  # the first warms up
    return fused, plain
