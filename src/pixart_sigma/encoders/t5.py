"""The encoder of T5 v1.1 and Flan-T5 (Raffel et al. 2020, Shazeer 2020), in pure torch.

Legend: B prompts of one length, L tokens, C channels, H heads, N tokens of several batches, one after the other.
Parameter names are those of transformers' `T5EncoderModel`, and so is the arithmetic, to rounding. It is here because
importing that library takes longer than encoding a prompt. Knows nothing of files and tokenizers. Dropout is left out:
the encoder is used as it is, or trained without.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixart_sigma.products import Linear

KEPT_IN_FP32 = "wo"
"""The layers whose results fp16 does not hold."""
PACKED_TOKENS = 2048
"""Of batches that share their products; more gain nothing, since weights are then read often enough."""


@dataclass(frozen=True)
class T5Config:
    """Sizes; the defaults are T5-XXL's. Names are those of config.json."""

    vocab_size: int = 32128
    d_model: int = 4096
    d_kv: int = 64
    d_ff: int = 10240
    num_layers: int = 24
    num_heads: int = 64
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6


def _embedding(num: int, width: int) -> nn.Embedding:
    """Without values yet: to draw them on the meta device, torch would import its compiler, which takes a second."""
    return nn.Embedding(num, width, _weight=torch.empty(num, width))


@dataclass(frozen=True)
class Span:
    """A batch's place among packed tokens: num, B; bias (1 or B, H, L, L), what is added to its scores."""

    num: int
    bias: Tensor

    @property
    def num_tokens(self) -> int:
        return self.num * self.bias.shape[-1]


class RMSNorm(nn.Module):
    """Scaled to a mean square of one, which is computed in fp32; no shift."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, states: Tensor) -> Tensor:
        scale = torch.rsqrt(states.float().square().mean(-1, keepdim=True) + self.epsilon)
        return self.weight * (states * scale).to(self.weight.dtype)


class SelfAttention(nn.Module):
    """Attention without scaling; what it adds for relative positions comes from outside."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        inner = config.num_heads * config.d_kv
        self.q = Linear(config.d_model, inner, bias=False)
        self.k = Linear(config.d_model, inner, bias=False)
        self.v = Linear(config.d_model, inner, bias=False)
        self.o = Linear(inner, config.d_model, bias=False)

    def forward(self, states: Tensor, spans: Sequence[Span]) -> Tensor:
        """states (N, C) → the same; tokens attend to those of their own prompt."""
        counts = [span.num_tokens for span in spans]
        projected = (projection(states).split(counts) for projection in (self.q, self.k, self.v))
        attended = [self._attend(span, *of_span) for span, *of_span in zip(spans, *projected, strict=True)]
        return self.o(attended[0] if len(attended) == 1 else torch.cat(attended))

    def _attend(self, span: Span, *projected: Tensor) -> Tensor:
        """Queries, keys and values (B · L, H · D) → (B · L, H · D)."""
        queries, keys, values = (
            each.unflatten(0, (span.num, -1)).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for each in projected
        )
        attended = F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=span.bias.to(queries.dtype), scale=1.0
        )
        return attended.transpose(1, 2).flatten(2).flatten(0, 1)


class AttentionLayer(nn.Module):
    """Norm, attention, residual."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.SelfAttention = SelfAttention(config)
        self.layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)

    def forward(self, states: Tensor, spans: Sequence[Span]) -> Tensor:
        return states + self.SelfAttention(self.layer_norm(states), spans)


class GatedFeedForward(nn.Module):
    """Gated tanh-GELU, as in T5 v1.1."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.wi_0 = Linear(config.d_model, config.d_ff, bias=False)
        self.wi_1 = Linear(config.d_model, config.d_ff, bias=False)
        self.wo = Linear(config.d_ff, config.d_model, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        gated = F.gelu(self.wi_0(states), approximate="tanh") * self.wi_1(states)
        # In fp16 these weights are in fp32.
        return self.wo(gated.to(self.wo.weight.dtype))


class FeedForwardLayer(nn.Module):
    """Norm, MLP, residual."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.DenseReluDense = GatedFeedForward(config)
        self.layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)

    def forward(self, states: Tensor) -> Tensor:
        return states + self.DenseReluDense(self.layer_norm(states))


class Block(nn.Module):
    """`layer.0` is the attention's, `layer.1` the MLP's."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.layer = nn.ModuleList([AttentionLayer(config), FeedForwardLayer(config)])

    def forward(self, states: Tensor, spans: Sequence[Span]) -> Tensor:
        """states (N, C) → the same."""
        return self.layer[1](self.layer[0](states, spans))


class Blocks(nn.Module):
    """All blocks and the last norm."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.block = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        # The first block owns the table that all of them use.
        self.block[0].layer[0].SelfAttention.relative_attention_bias = _embedding(
            config.relative_attention_num_buckets, config.num_heads
        )
        self.final_layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)

    @property
    def positions(self) -> Tensor:
        """The table of relative positions (buckets, H)."""
        return self.block[0].layer[0].SelfAttention.relative_attention_bias.weight

    def forward(self, states: Tensor, spans: Sequence[Span]) -> Tensor:
        for block in self.block:
            states = block(states, spans)
        return self.final_layer_norm(states)


@dataclass(frozen=True)
class Encoded:
    """What an encoder returns: last_hidden_state (B, L, C)."""

    last_hidden_state: Tensor


class T5Encoder(nn.Module):
    """In the place of a transformers `T5EncoderModel`: what is used of it has the same names.

    As made, its embeddings have no values: `initialise_weights`, or load some.
    """

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config = config
        self.shared = _embedding(config.vocab_size, config.d_model)
        self.encoder = Blocks(config)

    @torch.no_grad()
    def initialise_weights(self) -> None:
        """Fresh weights, as T5 v1.1 starts: results of products have unit variance, those of queries and keys too."""
        width, inner = self.config.d_model, self.config.num_heads * self.config.d_kv
        nn.init.normal_(self.shared.weight)
        nn.init.normal_(self.encoder.positions, std=width**-0.5)
        for block in self.encoder.block:
            attention, mlp = block.layer[0].SelfAttention, block.layer[1].DenseReluDense
            nn.init.normal_(attention.q.weight, std=(width * self.config.d_kv) ** -0.5)
            for projection in (attention.k, attention.v, mlp.wi_0, mlp.wi_1):
                nn.init.normal_(projection.weight, std=width**-0.5)
            nn.init.normal_(attention.o.weight, std=inner**-0.5)
            nn.init.normal_(mlp.wo.weight, std=self.config.d_ff**-0.5)

    @property
    def device(self) -> torch.device:
        return self.shared.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.shared.weight.dtype

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Encoded:
        """input_ids (B, L) int64, attention_mask (B, L), 1 or True on real tokens → Encoded; padding attends too."""
        (hidden,) = self._run([input_ids], attention_mask)
        return Encoded(hidden)

    def encode_batches(self, batches: Sequence[Tensor]) -> list[Tensor]:
        """Token ids (B, L) of each length → (B, L, C) of each, as alone to rounding; they share their products."""
        return [hidden for together in packs(batches) for hidden in self._run(together)]

    def _run(self, batches: Sequence[Tensor], mask: Tensor | None = None) -> list[Tensor]:
        spans = spans_of(self.config, self.encoder.positions, batches, mask)
        states = self.shared(torch.cat([ids.flatten() for ids in batches]))
        return unpacked(self.encoder(states, spans), batches)


def packs(batches: Sequence[Tensor]) -> list[list[Tensor]]:
    """Batches (B, L), in their order, in groups that share their products."""
    found: list[list[Tensor]] = []
    room = 0
    for ids in batches:
        if not found or ids.numel() > room:
            found.append([])
            room = PACKED_TOKENS
        found[-1].append(ids)
        room -= ids.numel()
    return found


def spans_of(
    config: T5Config, positions: Tensor, batches: Sequence[Tensor], mask: Tensor | None
) -> list[Span]:
    """Batches (B, L) that are packed together, a mask for each of them and the table of positions → their spans."""
    return [Span(len(ids), attention_bias(config, positions, ids.shape[1], mask)) for ids in batches]


def unpacked(states: Tensor, batches: Sequence[Tensor]) -> list[Tensor]:
    """states (N, C) → (B, L, C) of each of the batches (B, L) that are packed."""
    parts = states.split([ids.numel() for ids in batches])
    return [part.unflatten(0, ids.shape) for part, ids in zip(parts, batches, strict=True)]


def attention_bias(
    config: T5Config, positions: Tensor, length: int, attention_mask: Tensor | None = None
) -> Tensor:
    """The table of relative positions (buckets, H), L, and a mask (B, L) → what is added to scores (1 or B, H, L, L).

    It is the same in every block.
    """
    steps = torch.arange(length, device=positions.device)
    bias = F.embedding(_buckets(config, steps[None] - steps[:, None]), positions).permute(2, 0, 1)[None]
    bias = bias.contiguous()  # as fused kernels on a GPU want it
    if attention_mask is None:
        return bias
    padding = attention_mask[:, None, None].to(bias.device) == 0
    return bias.masked_fill(padding, torch.finfo(bias.dtype).min)


def _buckets(config: T5Config, distance: Tensor) -> Tensor:
    """Key's place minus query's → its bucket: half of them for each direction, of which half are for one distance each
    and the rest ever wider, up to the greatest distance and beyond.
    """
    one_direction = config.relative_attention_num_buckets // 2
    exact = one_direction // 2
    far = distance.abs().clamp(min=1).float() / exact
    widened = far.log() / math.log(config.relative_attention_max_distance / exact) * (one_direction - exact)
    beyond = (exact + widened.long()).clamp(max=one_direction - 1)
    return (distance > 0) * one_direction + torch.where(distance.abs() < exact, distance.abs(), beyond)
