"""Attention in bf16 on a CPU, in tiles that stay in its caches: up to twice as fast as torch's fused kernel.

Legend: B batch, N image tokens, M key tokens, R and C rows and columns of a tile of scores.

Products of bf16 on a CPU are summed up in fp32 and then rounded to bf16, which a score is too large for: one of 20 is
off by up to 0.06, and its weight by 6 %. Relative to the largest score of its query, though, the rounding of a score
is small where its weight is not. So the largest scores are looked for first, and taken away within the product that
makes the scores a second time: queries have one channel more, keys a one in it. Values have a one, too, by which the
weights are summed up along with what they weigh.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

TILE = (1024, 2048)
"""R, C: 4 MiB of scores."""

LEAST_KEYS = 128
"""For fewer keys, captions of a few words, the fused kernel is faster."""


def _multiplies_bf16() -> bool:
    has = torch.cpu.get_capabilities()
    return (
        torch.backends.mkldnn.is_available()
        and has.get("avx512_bf16", False)
        and not has.get("amx_bf16", False)
    )


MULTIPLIES_BF16 = _multiplies_bf16()
"""Whether the processor multiplies bf16 by itself, as vectors. Where it does not, tiles take up to 38 times the fused
kernel's time; where it does so as matrices (AMX), for which that kernel has a way of its own, nobody has measured.
"""

MARGIN = 1.0
"""How far the largest score stays above nought: weight lies beneath it, the more so the flatter attention is."""

ALIGNMENT = 8
"""Channels are filled up to a multiple of so many."""


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Queries (B, heads, N, head dim), keys and values (B, heads, M, head dim) → (B, heads, N, head dim), in tiles or
    by the fused kernel, whichever is faster.
    """
    if takes(queries, keys):
        return attend_in_tiles(queries, keys, values)
    return F.scaled_dot_product_attention(queries, keys, values)


def takes(queries: Tensor, keys: Tensor) -> bool:
    """Whether attention of these, (B, heads, N or M, head dim), is to be in tiles."""
    return (
        MULTIPLIES_BF16
        and queries.dtype == torch.bfloat16
        and queries.device.type == "cpu"
        and keys.shape[2] >= LEAST_KEYS
        and not torch.is_grad_enabled()
        and type(queries) is Tensor
    )


def attend_in_tiles(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Queries (B, heads, N, head dim), keys and values (B, heads, M, head dim), mask (B, 1, 1, M) bool, True where
    attended to, at least one of each sample → (B, heads, N, head dim). bf16, without gradients.
    """
    if torch.compiler.is_compiling():
        return _operation(queries, keys, values, mask)
    attended = torch.empty_like(queries)
    for sample, of_queries in enumerate(queries):
        of_keys, of_values = keys[sample], values[sample]
        if mask is not None:
            kept = mask[sample, 0, 0]
            of_keys, of_values = of_keys[:, kept], of_values[:, kept]
        rows, columns = min(TILE[0], of_queries.shape[1]), min(TILE[1], of_keys.shape[1])
        heads = max(1, TILE[0] * TILE[1] // (rows * columns))
        for start in range(0, len(of_queries), heads):
            some = slice(start, start + heads)
            _attend(of_queries[some], of_keys[some], of_values[some], attended[sample, some], (rows, columns))
    return attended


# For the compiler alone: called by itself, an operation of one's own imports the compiler, which takes a second.
@torch.library.custom_op("pixart_sigma::attend_in_tiles", mutates_args=(), device_types="cpu")
def _operation(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
    return attend_in_tiles(queries, keys, values, mask)


@_operation.register_fake
def _(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
    return torch.empty_like(queries)


def _attend(queries: Tensor, keys: Tensor, values: Tensor, attended: Tensor, tile: tuple[int, int]) -> None:
    """Queries and attended (heads, N, head dim), keys and values (heads, M, head dim); `attended` is written to."""
    channels = queries.shape[-1]
    scale = channels**-0.5
    nothing = queries.new_empty(())
    keys, values = _with_channel(keys, 1), _with_channel(values, 1)
    tiles = list(zip(keys.mT.split(tile[1], 2), values.split(tile[1], 1), strict=True))
    for some_queries, some_attended in zip(
        queries.split(tile[0], 1), attended.split(tile[0], 1), strict=True
    ):
        shifted = _with_channel(some_queries, 0)
        largest = torch.stack([torch.bmm(shifted, some_keys).amax(-1) for some_keys, _ in tiles]).amax(0)
        shifted[..., channels] = MARGIN / scale - largest
        sums = torch.zeros(shifted.shape, dtype=torch.float32)
        for some_keys, some_values in tiles:
            # alpha scales the fp32 sum before it is rounded; beta leaves `nothing` unread.
            weights = torch.baddbmm(nothing, shifted, some_keys, beta=0, alpha=scale).exp_()
            sums += torch.bmm(weights, some_values)
            del weights
        some_attended.copy_(sums[..., :channels] / sums[..., channels, None])


def _with_channel(tokens: Tensor, channel: Tensor | float) -> Tensor:
    """(heads, tokens, head dim) → the same with one channel more, filled up with zeros."""
    channels = tokens.shape[-1]
    filled = F.pad(tokens, (0, ALIGNMENT - channels % ALIGNMENT))
    filled[..., channels] = channel
    return filled
