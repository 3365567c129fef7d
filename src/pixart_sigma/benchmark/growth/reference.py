"""Self-attention with compressed keys and values written plainly, to hold the library's against.

Legend: B batch, N image tokens, M key tokens, D width.

Nothing is saved here: keys and values of all tokens, then one of each window, then attention. Takes the weights by the
names that they have in files, and knows nothing of how the library arranges its work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor
from torch.nn import functional as F

from pixart_sigma.model import KVCompression, PixArtTransformer


def plain_attention(
    weights: Mapping[str, Tensor],
    num_heads: int,
    tokens: Tensor,
    grid: tuple[int, int],
    compression: KVCompression | None,
) -> Tensor:
    """tokens (B, N, D) on a (height, width) grid, weights by their names below `attn1` → (B, N, D)."""
    queries, keys, values = (_projected(weights, f"to_{name}", tokens) for name in "qkv")
    if compression is not None:
        keys, values = (_one_a_window(weights, each, grid, compression) for each in (keys, values))
    split = (each.unflatten(-1, (num_heads, -1)).transpose(1, 2) for each in (queries, keys, values))
    attended = F.scaled_dot_product_attention(*split)
    return _projected(weights, "to_out.0", attended.transpose(1, 2).flatten(2))


@contextmanager
def written_plainly(model: PixArtTransformer) -> Iterator[None]:
    """While it lasts, the model's blocks attend with `plain_attention`."""
    attentions = [block.attn1 for block in model.transformer_blocks]
    former = [vars(attention).get("forward") for attention in attentions]
    compression = model.config.kv_compression
    try:
        for index, attention in enumerate(attentions):
            compresses = compression is not None and index in compression.blocks
            attention.forward = _plain_forward(
                dict(attention.state_dict()),
                model.config.num_attention_heads,
                compression if compresses else None,
            )
        yield
    finally:
        for attention, forward in zip(attentions, former, strict=True):
            vars(attention).pop("forward")
            if forward is not None:
                attention.forward = forward


def _plain_forward(
    weights: Mapping[str, Tensor], num_heads: int, compression: KVCompression | None
) -> Callable[[Tensor, tuple[int, int], Tensor | None], Tensor]:
    def forward(tokens: Tensor, grid: tuple[int, int], kept_tokens: Tensor | None) -> Tensor:
        assert kept_tokens is None
        return plain_attention(weights, num_heads, tokens, grid, compression)

    return forward


def _projected(weights: Mapping[str, Tensor], name: str, tokens: Tensor) -> Tensor:
    return F.linear(tokens, weights[f"{name}.weight"], weights[f"{name}.bias"])


def _one_a_window(
    weights: Mapping[str, Tensor], tokens: Tensor, grid: tuple[int, int], compression: KVCompression
) -> Tensor:
    """(B, N, D) → (B, M, D); the last row and column are repeated until windows fit."""
    width = tokens.shape[-1]
    rows, columns = compression.window
    image = tokens.transpose(1, 2).unflatten(2, grid)
    image = F.pad(image, (0, -grid[1] % columns, 0, -grid[0] % rows), mode="replicate")
    if compression.operator == "average":
        return F.avg_pool2d(image, compression.window).flatten(2).transpose(1, 2)
    mixed = F.conv2d(
        image,
        weights["kv_compression.conv.weight"],
        weights["kv_compression.conv.bias"],
        stride=compression.window,
        groups=width,
    )
    mixed = mixed.flatten(2).transpose(1, 2)
    return F.layer_norm(
        mixed, (width,), weights["kv_compression.norm.weight"], weights["kv_compression.norm.bias"]
    )
