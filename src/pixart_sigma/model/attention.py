"""Self-attention over image tokens and cross-attention from image to caption tokens.

Legend: B batch, N image tokens, M key tokens after compression, L caption tokens, T packed caption tokens, D
width.
Knows nothing of modulation or residuals. Parameter names follow diffusers.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from pixart_sigma.model.config import TransformerConfig
from pixart_sigma.model.kv_compression import KVCompressor


def _projection_out(width: int) -> nn.ModuleList:
    # The second slot is dropout in diffusers; PixArt has none, the name `to_out.0` remains.
    return nn.ModuleList([nn.Linear(width, width), nn.Identity()])


def split_heads(tokens: Tensor, num_heads: int) -> Tensor:
    """(B, N, D) → (B, heads, N, head dim), a view."""
    return tokens.unflatten(-1, (num_heads, -1)).transpose(1, 2)


class SelfAttention(nn.Module):
    """Image tokens attend to image tokens, with optional qk-norm and key/value compression."""

    def __init__(self, config: TransformerConfig, compressed: bool) -> None:
        super().__init__()
        width = config.width
        self.num_heads = config.num_attention_heads
        self.to_q = nn.Linear(width, width)
        self.to_k = nn.Linear(width, width)
        self.to_v = nn.Linear(width, width)
        self.to_out = _projection_out(width)
        # Over the whole width, before the heads are split, as in the official code.
        self.q_norm = nn.LayerNorm(width) if config.qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(width) if config.qk_norm else nn.Identity()
        if compressed and config.kv_compression is not None:
            self.kv_compression: KVCompressor | None = KVCompressor(config.kv_compression, width)
        else:
            self.kv_compression = None

    def forward(self, tokens: Tensor, grid: tuple[int, int], kept_tokens: Tensor | None) -> Tensor:
        """tokens (B, N, D) on a (height, width) grid → (B, N, D)."""
        sources = tokens
        if self.kv_compression is not None:
            sources = self.kv_compression.select(tokens, grid, kept_tokens)
        queries = self.q_norm(self.to_q(tokens))
        keys = self.k_norm(self.to_k(sources))
        values = self.to_v(sources)
        if self.kv_compression is not None:
            keys = self.kv_compression.mix(keys, grid)
            values = self.kv_compression.mix(values, grid)
        # Normalisation layers may leave queries or keys in fp32 under autocast; attention wants one dtype.
        attended = F.scaled_dot_product_attention(
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
        self.to_q = nn.Linear(width, width)
        self.to_k = nn.Linear(width, width)
        self.to_v = nn.Linear(width, width)
        self.to_out = _projection_out(width)

    def keys_and_values(self, caption_tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Projected caption tokens (T, D) → keys (T, D), values (T, D)."""
        return self.to_k(caption_tokens), self.to_v(caption_tokens)

    def forward(self, tokens: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """tokens (B, N, D), keys and values (B, heads, L, head dim), mask (B, 1, 1, L) bool → (B, N, D)."""
        queries = split_heads(self.to_q(tokens), self.num_heads)
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        return self.to_out[0](attended.transpose(1, 2).flatten(2))
