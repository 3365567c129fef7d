"""One transformer block: modulated self-attention, cross-attention to the caption, modulated MLP.

Legend: B batch, N image tokens, L caption tokens, T packed caption tokens, D width, S timestep rows (1 or B).
Knows nothing of patches, positions or of the other blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixart_sigma.model.attention import CrossAttention, SelfAttention
from pixart_sigma.model.config import MLP_RATIO, TransformerConfig
from pixart_sigma.model.pieces import in_pieces
from pixart_sigma.products import Linear

NORM_EPSILON = 1e-6  # DiT: every LayerNorm without parameters


def modulated_norm(tokens: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """LayerNorm without parameters, then the timestep's scale and shift; tokens (B, N, D), rows (S, 1, D)."""
    return F.layer_norm(tokens, (tokens.shape[-1],), eps=NORM_EPSILON) * (1 + scale) + shift


def modulation_table(num_rows: int, width: int) -> nn.Parameter:
    """Fresh rows (num_rows, D) with a standard deviation of 1 / sqrt(D), as DiT has them."""
    table = nn.Parameter(torch.empty(num_rows, width))
    # For a table of no values torch would import its compiler, which takes a second.
    if not table.is_meta:
        nn.init.normal_(table, std=width**-0.5)
    return table


class GeluProjection(nn.Module):
    """Linear, then tanh-GELU; a module of its own for the sake of the name `ff.net.0.proj`."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.proj = Linear(in_features, out_features)

    def forward(self, tokens: Tensor) -> Tensor:
        return F.gelu(self.proj(tokens), approximate="tanh")


class FeedForward(nn.Module):
    """The block's MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = MLP_RATIO * width
        # The middle slot is dropout in diffusers; PixArt has none, the names remain.
        self.net = nn.Sequential(GeluProjection(width, hidden), nn.Identity(), Linear(hidden, width))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.net(tokens)


class TransformerBlock(nn.Module):
    """PixArt's block: DiT's with adaLN-single and a cross-attention that is neither normed nor modulated."""

    def __init__(self, config: TransformerConfig, compressed: bool) -> None:
        super().__init__()
        self.attn1 = SelfAttention(config, compressed)
        self.attn2 = CrossAttention(config)
        self.ff = FeedForward(config.width)
        self.scale_shift_table = modulation_table(6, config.width)

    def modulation(self, shared_rows: Tensor) -> Tensor:
        """The rows all blocks share (S, 6, D) → this block's rows (S, 6, D)."""
        return self.scale_shift_table + shared_rows

    def caption_keys_and_values(self, caption_tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Projected caption tokens (T, D) → this block's keys (T, D), values (T, D).

        Whoever shards a model gathers a block's weights when one of the block's own methods is called.
        """
        return self.attn2.keys_and_values(caption_tokens)

    def forward(
        self,
        tokens: Tensor,
        modulation: Tensor,
        caption_keys: Tensor,
        caption_values: Tensor,
        caption_mask: Tensor | None,
        grid: tuple[int, int],
        kept_tokens: Tensor | None = None,
    ) -> Tensor:
        """tokens (B, N, D) → (B, N, D); modulation (S, 6, D), the caption as for `CrossAttention`."""
        shift_attn, scale_attn, gate_attn, shift_mlp, scale_mlp, gate_mlp = modulation.unsqueeze(2).unbind(1)
        attended = self.attn1(modulated_norm(tokens, shift_attn, scale_attn), grid, kept_tokens)
        tokens = tokens + gate_attn * attended
        del attended  # a picture's worth of memory

        def each_by_itself(tokens: Tensor) -> Tensor:
            tokens = tokens + self.attn2(tokens, caption_keys, caption_values, caption_mask)
            return tokens + gate_mlp * self.ff(modulated_norm(tokens, shift_mlp, scale_mlp))

        return in_pieces(each_by_itself, tokens)
