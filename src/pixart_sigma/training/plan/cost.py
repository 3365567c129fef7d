"""How many floating-point operations a forward pass, a training step and the encoders take, by part.

Legend: B batch, N image tokens, M key tokens after compression, L caption tokens, D width.

Only products and sums of matrix products, convolutions and attention count, a multiply-add as two; norms, activations
and additions do not. All figures are per sample. Knows nothing of time, memory or machines.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, fields
from typing import Literal

import torch

from pixart_sigma.errors import InvalidInput
from pixart_sigma.model import PixArtTransformer, TransformerConfig
from pixart_sigma.model.config import MLP_RATIO
from pixart_sigma.model.embeddings import SINUSOID_CHANNELS
from pixart_sigma.model.kv_compression import num_kept_tokens, replicated_grid
from pixart_sigma.resolution import LATENT_SCALE

ActivationCheckpointing = Literal["none", "selective", "full"]

CAPTION_TOKENS = 300  # Σ's longest caption

Shapes = dict[str, tuple[int, ...]]
"""The shape of each weight by its name."""


@dataclass(frozen=True)
class Flops:
    """One forward pass by part. Projections are matrix products with weights, scores those of tokens with tokens."""

    patches: float
    captions: float
    modulation: float
    self_projections: float
    self_scores: float
    cross_projections: float
    cross_scores: float
    mlp: float
    output: float

    @property
    def total(self) -> float:
        return float(sum(getattr(self, field.name) for field in fields(self)))

    @property
    def attention(self) -> float:
        """What the attention kernel does, at a rate of its own."""
        return self.self_scores + self.cross_scores

    @property
    def matrix(self) -> float:
        """Everything else."""
        return self.total - self.attention

    @property
    def blocks(self) -> float:
        """What runs inside the blocks, and again when their activations were not kept."""
        return self.self_projections + self.cross_projections + self.attention + self.mlp

    @property
    def self_attention_share(self) -> float:
        return self.self_scores / self.total


@dataclass(frozen=True)
class StepFlops:
    """One training step, per sample. `model` is what MFU counts: forward and backward, nothing done twice."""

    forward: float
    backward: float
    recomputed: float
    encoders: float

    @property
    def model(self) -> float:
        return self.forward + self.backward

    @property
    def total(self) -> float:
        return self.model + self.recomputed + self.encoders


@dataclass(frozen=True)
class LoraShape:
    """Adapters of `rank` beside every linear layer whose name ends with one of `targets`, as peft matches them."""

    rank: int
    targets: tuple[str, ...]
    dora: bool = False


@dataclass(frozen=True)
class T5Shape:
    """A T5 encoder with gated GELU; the defaults are T5-XXL, v1.1 and Flan alike."""

    width: int = 4096
    feed_forward_width: int = 10240
    num_layers: int = 24
    num_heads: int = 64
    head_dim: int = 64
    vocabulary_size: int = 32128
    relative_buckets: int = 32

    @property
    def num_parameters(self) -> int:
        inner = self.num_heads * self.head_dim
        layer = 4 * self.width * inner + 3 * self.width * self.feed_forward_width + 2 * self.width
        shared = self.vocabulary_size * self.width + self.relative_buckets * self.num_heads + self.width
        return self.num_layers * layer + shared


@dataclass(frozen=True)
class AutoencoderShape:
    """The encoder of a KL autoencoder; the defaults are SD's and SDXL's."""

    channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    latent_channels: int = 4
    middle_attention: bool = True


@functools.lru_cache(maxsize=16)
def parameter_shapes(config: TransformerConfig) -> Shapes:
    """Every weight's name and shape; nothing is allocated. All callers get the same dictionary."""
    with torch.device("meta"):
        model = PixArtTransformer(config)
    return {name: tuple(weight.shape) for name, weight in model.named_parameters()}


def num_elements(shapes: Shapes) -> int:
    """The number of weights."""
    return sum(torch.Size(shape).numel() for shape in shapes.values())


def adapted_layers(shapes: Shapes, lora: LoraShape) -> dict[str, tuple[int, int]]:
    """The (out, in) shapes of the weights beside which adapters stand, by name. Raises InvalidInput for no weight."""
    found = {}
    for name, shape in shapes.items():
        layer = name.removesuffix(".weight")
        if layer != name and len(shape) == 2 and _ends_with_one_of(layer, lora.targets):
            found[name] = (shape[0], shape[1])
    if not found:
        raise InvalidInput(
            f"lora.targets {list(lora.targets)} name no linear layer; name some, such as attn1.to_q"
        )
    return found


def adapter_shapes(shapes: Shapes, lora: LoraShape) -> Shapes:
    """The adapters' own weights: A (rank, in), B (out, rank) and, for DoRA, a magnitude (out)."""
    adapters: Shapes = {}
    for name, (rows, columns) in adapted_layers(shapes, lora).items():
        adapters[f"{name}.A"] = (lora.rank, columns)
        adapters[f"{name}.B"] = (rows, lora.rank)
        if lora.dora:
            adapters[f"{name}.magnitude"] = (rows,)
    return adapters


def token_grid(config: TransformerConfig, height: int, width: int, latent_scale: int) -> tuple[int, int]:
    """Pixels → (rows, columns) of tokens. Raises InvalidInput for a side that is no multiple of a token's."""
    side = latent_scale * config.patch_size
    for name, pixels in (("height", height), ("width", width)):
        if pixels <= 0 or pixels % side:
            raise InvalidInput(
                f"{name} {pixels} is not a multiple of {side}; nearest: {max(1, pixels // side) * side}"
            )
    return height // side, width // side


def forward_flops(
    config: TransformerConfig,
    height: int,
    width: int,
    caption_tokens: int = CAPTION_TOKENS,
    padded_caption_tokens: int | None = None,
    latent_scale: int = LATENT_SCALE,
) -> Flops:
    """One forward pass on one picture of height x width pixels.

    `caption_tokens` are those that are projected, the real ones; image tokens attend to `padded_caption_tokens`, as
    many if left out. Timesteps are embedded once per picture, as in training.
    """
    grid = token_grid(config, height, width, latent_scale)
    tokens = grid[0] * grid[1]
    attended_captions = caption_tokens if padded_caption_tokens is None else padded_caption_tokens
    square = config.width**2
    self_projections = self_scores = 0.0
    for block in range(config.num_layers):
        sources, keys = _key_tokens(config, grid, block)
        self_projections += 2 * square * (2 * tokens + sources)
        self_scores += 4 * tokens * keys * config.width
    patch = config.patch_size**2
    embeddings = 2 * (SINUSOID_CHANNELS * config.width + square)
    if config.micro_conditioning:
        third = config.width // 3  # height, width and aspect ratio have a third of the width each
        embeddings += 3 * 2 * (SINUSOID_CHANNELS * third + third**2)
    return Flops(
        patches=2 * tokens * patch * config.in_channels * config.width,
        captions=2 * caption_tokens * config.caption_channels * config.width
        + (2 + 4 * config.num_layers) * caption_tokens * square,
        modulation=embeddings + 2 * 6 * square,
        self_projections=self_projections,
        self_scores=self_scores,
        cross_projections=config.num_layers * 4 * tokens * square,
        cross_scores=config.num_layers * 4 * tokens * attended_captions * config.width,
        mlp=config.num_layers * 4 * MLP_RATIO * tokens * square,
        output=2 * tokens * config.width * patch * config.out_channels,
    )


def step_flops(
    config: TransformerConfig,
    forward: Flops,
    tokens: int,
    caption_tokens: int,
    checkpointing: ActivationCheckpointing = "none",
    lora: LoraShape | None = None,
    encoders: float = 0.0,
) -> StepFlops:
    """One training step per sample, from its forward pass.

    Backward takes twice the forward: a gradient for the input and one for the weight. With LoRA the base needs none for
    its weights, and none for captions, patches and timesteps, in front of which nothing learns, unless they are
    adapted. "full" repeats the blocks' forward pass. "selective" keeps the results of every product, and repeats none.
    """
    recomputed = forward.blocks if checkpointing == "full" else 0.0
    if lora is None:
        return StepFlops(forward.total, 2 * forward.total, recomputed, encoders)
    adapted = adapted_layers(parameter_shapes(config), lora)
    extra = extra_in_blocks = 0.0
    for name, (rows, columns) in adapted.items():
        product = 2 * lora.rank * (rows + columns) * _rows_through(name, tokens, caption_tokens)
        extra += product
        if name.startswith("transformer_blocks.") and not _on_captions(name):
            extra_in_blocks += product
    inputs = forward.self_projections + forward.cross_projections + forward.mlp + forward.output
    if any(name.startswith("caption_projection.") for name in adapted):
        inputs += forward.captions
    if any(name.startswith("adaln_single.") for name in adapted):
        inputs += forward.modulation
    backward = inputs + 2 * forward.attention + 2 * extra
    if checkpointing == "full":
        recomputed += extra_in_blocks
    return StepFlops(forward.total + extra, backward, recomputed, encoders)


def text_encoder_flops(shape: T5Shape, tokens: int) -> float:
    """One caption of `tokens` through a T5 encoder."""
    inner = shape.num_heads * shape.head_dim
    products = 2 * tokens * (4 * shape.width * inner + 3 * shape.width * shape.feed_forward_width)
    return float(shape.num_layers * (products + 4 * tokens**2 * inner))


def autoencoder_flops(shape: AutoencoderShape, height: int, width: int) -> float:
    """One picture of height x width pixels through the encoder of a KL autoencoder."""
    pixels = float(height * width)
    total = _convolution(3, shape.channels[0], pixels)
    before = shape.channels[0]
    for level, channels in enumerate(shape.channels):
        for _ in range(shape.layers_per_block):
            total += _residual(before, channels, pixels)
            before = channels
        if level < len(shape.channels) - 1:
            pixels /= 4
            total += _convolution(channels, channels, pixels)
    total += 2 * _residual(before, before, pixels)
    if shape.middle_attention:
        total += 8 * pixels * before**2 + 4 * pixels**2 * before
    doubled = 2 * shape.latent_channels  # mean and variance
    return total + _convolution(before, doubled, pixels) + 2 * pixels * doubled**2


def _key_tokens(config: TransformerConfig, grid: tuple[int, int], block: int) -> tuple[int, int]:
    """Tokens that are projected to keys, plus those projected to values; and the keys that are left."""
    tokens = grid[0] * grid[1]
    compression = config.kv_compression
    if compression is None or block not in compression.blocks or not compression.applies(grid):
        return 2 * tokens, tokens
    kept = num_kept_tokens(grid, compression.window)
    rows, columns = replicated_grid(grid, compression.window)
    if compression.operator == "conv":
        return 2 * rows * columns, kept
    if compression.operator == "average" and config.qk_norm:
        return rows * columns + kept, kept
    return 2 * kept, kept


def _convolution(before: int, after: int, pixels: float) -> float:
    return 2 * 9 * before * after * pixels


def _residual(before: int, after: int, pixels: float) -> float:
    shortcut = 2 * before * after * pixels if before != after else 0.0
    return _convolution(before, after, pixels) + _convolution(after, after, pixels) + shortcut


def _ends_with_one_of(name: str, targets: tuple[str, ...]) -> bool:
    return any(name == target or name.endswith(f".{target}") for target in targets)


def _on_captions(name: str) -> bool:
    return name.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))


def _rows_through(name: str, tokens: int, caption_tokens: int) -> int:
    if name.startswith("adaln_single."):
        return 1
    return caption_tokens if _on_captions(name) or name.startswith("caption_projection.") else tokens
