"""Self-attention over image tokens and cross-attention from image to caption tokens.

Legend: B batch, N image tokens, M key tokens after compression, L caption tokens, T packed caption tokens, D
width.
Knows nothing of modulation or residuals. Parameter names follow diffusers.

In inference no (N, M) matrix of scores is ever whole in memory. torch's fused kernels see to that on a CPU and, for
these head sizes and masks, on a GPU; what they refuse (bf16 on a GPU before Ampere, other devices) is cut here, unless
it is compiled. In bf16 on a CPU, where they are slow, `tiled_attention.py` takes their place on processors that it
knows; in training, on few tokens, attention written out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend

from pixart_sigma import tiled_attention
from pixart_sigma.model.config import TransformerConfig
from pixart_sigma.model.kv_compression import KVCompressor
from pixart_sigma.model.pieces import cut, in_pieces
from pixart_sigma.products import Linear

MOST_SCORES = 2**26
"""Scores written out at once in inference: 256 MiB in fp32, of which the softmax makes another."""

FUSED_FROM_TOKENS = 600
"""Image tokens from which training in bf16 on a CPU takes the fused kernel (`pixart-sigma benchmark attention`)."""


def _projection_out(width: int) -> nn.ModuleList:
    # The second slot is dropout in diffusers; PixArt has none, the name `to_out.0` remains.
    return nn.ModuleList([Linear(width, width), nn.Identity()])


def split_heads(tokens: Tensor, num_heads: int) -> Tensor:
    """(B, N, D) → (B, heads, N, head dim), a view."""
    return tokens.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Queries (B, heads, N, head dim), keys and values (B, heads, M, head dim), mask (B, 1, 1, M) bool, True where
    attended to → (B, heads, N, head dim).
    """
    batch, heads, num_queries, _ = queries.shape
    num_keys = keys.shape[2]
    if torch.is_grad_enabled() and writes_out(queries.device.type, num_queries, queries.dtype):
        return written_out(queries, keys, values, mask)
    if tiled_attention.takes(queries, keys):
        return tiled_attention.attend_in_tiles(queries, keys, values, mask)
    few = batch * heads * num_queries * num_keys <= MOST_SCORES
    # A compiler cannot look into the question for a kernel, and would cut its graph there.
    whole = few or torch.is_grad_enabled() or torch.compiler.is_compiling()
    if whole or _has_kernel(queries, keys, values, mask):
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    attended = torch.empty_like(queries)
    rows = max(1, MOST_SCORES // (batch * num_keys))
    # By heads first: written out, attention copies the keys every time.
    for head in range(heads):
        one = slice(head, head + 1)
        for start in range(0, num_queries, rows):
            some = slice(start, start + rows)
            attended[:, one, some] = F.scaled_dot_product_attention(
                queries[:, one, some], keys[:, one], values[:, one], attn_mask=mask
            )
    return attended


def writes_out(device_type: str, num_tokens: int, dtype: torch.dtype) -> bool:
    """Whether training on `num_tokens` image tokens writes attention out, since that is the faster way there."""
    return device_type == "cpu" and dtype == torch.bfloat16 and num_tokens < FUSED_FROM_TOKENS


def written_out(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention as two products in the dtype of its inputs; the scores are kept for the backward pass.

    torch's own way to write it out computes bf16 products in fp32, on a CPU at a quarter of the speed.
    """
    scores = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-2, -1)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1) @ values


def _has_kernel(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> bool:
    """Whether torch has a fused kernel for these. CPU and CUDA can be asked; on the meta device nothing is computed."""
    if queries.device.type not in ("cpu", "cuda"):
        return queries.device.type == "meta"
    # What scaled_dot_product_attention itself asks, so it knows what `sdpa_kernel` allows, too.
    choice = torch._fused_sdp_choice(queries, keys, values, attn_mask=mask)
    return choice != int(SDPBackend.MATH.value)


class SelfAttention(nn.Module):
    """Image tokens attend to image tokens, with optional qk-norm and key/value compression."""

    def __init__(self, config: TransformerConfig, compressed: bool) -> None:
        super().__init__()
        width = config.width
        self.num_heads = config.num_attention_heads
        self.to_q = Linear(width, width)
        self.to_k = Linear(width, width)
        self.to_v = Linear(width, width)
        self.to_out = _projection_out(width)
        # Over the whole width, before the heads are split, as in the official code.
        self.q_norm = nn.LayerNorm(width) if config.qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(width) if config.qk_norm else nn.Identity()
        if compressed and config.kv_compression is not None:
            self.kv_compression: KVCompressor | None = KVCompressor(config.kv_compression, width)
        else:
            self.kv_compression = None

    def forward(self, tokens: Tensor, grid: tuple[int, int], kept_tokens: Tensor | None) -> Tensor:
        """tokens (B, N, D) on a (height, width) grid → (B, N, D), where they are cut in place of the tokens."""
        if not cut(tokens):
            # Queries first: gradients are added up in the order of these lines.
            queries = self.q_norm(self.to_q(tokens))
            return self._attended(queries, *self.keys_and_values(tokens, grid, kept_tokens))
        keys, values = self.keys_and_values(tokens, grid, kept_tokens)
        return in_pieces(lambda piece: self._attended(self.q_norm(self.to_q(piece)), keys, values), tokens)

    def keys_and_values(
        self, tokens: Tensor, grid: tuple[int, int], kept_tokens: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """tokens (B, N, D) → keys (B, M, D), values (B, M, D), compressed where this block compresses.

        Whoever shares a picture out over devices puts another in its place, which adds those of the others.
        """
        compression = self.kv_compression
        if compression is None or not compression.applies(grid):
            return self.k_norm(self.to_k(tokens)), self.to_v(tokens)
        norm = None if isinstance(self.k_norm, nn.Identity) else self.k_norm
        windows = compression.windows(tokens, grid, kept_tokens, norms=norm is not None)
        return compression.compress(windows, self.to_k, norm), compression.compress(windows, self.to_v)

    def _attended(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        # Normalisation layers may leave queries or keys in fp32 under autocast; attention wants one dtype.
        attended = attend(
            split_heads(queries.to(values.dtype), self.num_heads),
            split_heads(keys.to(values.dtype), self.num_heads),
            split_heads(values, self.num_heads),
        )
        return self.to_out[0](attended.transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Image tokens attend to caption tokens, whose keys and values were prepared beforehand."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width = config.width
        self.num_heads = config.num_attention_heads
        self.to_q = Linear(width, width)
        self.to_k = Linear(width, width)
        self.to_v = Linear(width, width)
        self.to_out = _projection_out(width)

    def keys_and_values(self, caption_tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Projected caption tokens (T, D) → keys (T, D), values (T, D)."""
        return self.to_k(caption_tokens), self.to_v(caption_tokens)

    def forward(self, tokens: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """tokens (B, N, D), keys and values (B, heads, L, head dim), mask (B, 1, 1, L) bool → (B, N, D)."""
        queries = split_heads(self.to_q(tokens), self.num_heads)
        attended = attend(queries, keys, values, mask)
        return self.to_out[0](attended.transpose(1, 2).flatten(2))
