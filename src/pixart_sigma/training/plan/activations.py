"""How many bytes autograd keeps between forward and backward, for the transformer on one micro-batch.

Legend: B batch, N image tokens, M key tokens after compression, L caption tokens, D width, T = B · N.

The figures follow from what each operation of `model/` saves, and a test compares them with what torch saves. Under
autocast the residual stream and the norms are fp32 (modulation rows are), and every matrix product has a bf16 copy
of its input. Knows nothing of weights or of their bf16 copies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pixart_sigma.model import TransformerConfig
from pixart_sigma.model.activation_memory import combines
from pixart_sigma.model.config import CAPTION_LENGTH_MULTIPLE, MLP_RATIO
from pixart_sigma.model.kv_compression import num_kept_tokens, replicated_grid
from pixart_sigma.training.plan.cost import ActivationCheckpointing, token_grid

Precision = Literal["bf16", "fp32"]
AttentionKernel = Literal["fused", "plain"]

_FP32 = 4


@dataclass(frozen=True)
class Activations:
    """Bytes at the peak of a step. `saved`: kept until their block's backward pass. `working`: for one block only."""

    saved: float
    working: float

    @property
    def total(self) -> float:
        return self.saved + self.working


@dataclass(frozen=True)
class MicroBatch:
    """What a rank runs at once: pictures of height x width pixels, each with as many caption tokens."""

    batch_size: int
    height: int
    width: int
    caption_tokens: int

    @property
    def padded_caption_tokens(self) -> int:
        """L as the model pads it."""
        return -(-self.caption_tokens // CAPTION_LENGTH_MULTIPLE) * CAPTION_LENGTH_MULTIPLE


def activations(
    config: TransformerConfig,
    batch: MicroBatch,
    latent_scale: int,
    precision: Precision = "bf16",
    checkpointing: ActivationCheckpointing = "none",
    kernel: AttentionKernel = "fused",
) -> Activations:
    """The activations of one forward and backward pass.

    With checkpointing a block keeps its input ("full"), or that and the results of its products and of attention
    ("selective"); the rest of one block at a time comes back during the backward pass.
    """
    grid = token_grid(config, batch.height, batch.width, latent_scale)
    tokens = batch.batch_size * grid[0] * grid[1]
    element = 2 if precision == "bf16" else _FP32
    blocks = [_block(config, batch, grid, index, element, kernel) for index in range(config.num_layers)]
    largest = max(blocks)
    if checkpointing == "none":
        saved, again = sum(blocks), 0.0
    elif checkpointing == "full":
        saved, again = config.num_layers * _FP32 * tokens * config.width, largest
    else:
        kept = [
            _FP32 * tokens * config.width + _products(config, batch, grid, index, element, kernel)
            for index in range(config.num_layers)
        ]
        saved, again = sum(kept), largest - min(kept)
    # In the MLP's backward pass: the gradients of both sides of its GELU; throughout: the residual stream's, twice.
    gradients = tokens * config.width * (2 * MLP_RATIO * element + 2 * _FP32)
    return Activations(saved + _ends(config, batch, tokens, element, kernel), gradients + again)


def _block(
    config: TransformerConfig,
    batch: MicroBatch,
    grid: tuple[int, int],
    index: int,
    element: int,
    kernel: AttentionKernel,
) -> float:
    """One block's saved bytes. The terms stand in the order of the block's forward pass."""
    samples, width, heads = batch.batch_size, config.width, config.num_attention_heads
    tokens = samples * grid[0] * grid[1]
    keys = samples * _kept(config, grid, index)
    captions = batch.padded_caption_tokens
    norms = 2 * 2 * _FP32  # input and result of the two norms
    inputs = 3 * element  # of q, the caption's q and the MLP
    attention = 2 * element  # queries, and what was attended
    gate = element
    cross = 2 * element
    mlp = 2 * MLP_RATIO * element + element  # both sides of the GELU, and what the gate multiplies
    qk_norm = 2 * element if config.qk_norm else 0
    per_token = norms + inputs + attention + gate + cross + mlp + qk_norm

    total = float(per_token * tokens * width) + 2 * element * keys * width
    # k and v have a bf16 copy of their input each; in fp32 they share one, with q too if all tokens are theirs.
    sources = samples * _sources(config, grid, index)
    copies = 2 if element < _FP32 else int(_kept(config, grid, index) < grid[0] * grid[1])
    total += copies * element * sources * width
    if _convolves(config, grid, index):
        # The convolution's results, which are normed. What it has beside: its weights combined with those of the
        # projections, or the projected tokens and another order of them.
        window = config.kv_compression.ratio  # type: ignore[union-attr]
        beside = window * width**2 if combines(keys, width) else sources * width
        total += 2 * element * (keys * width + beside)
    if kernel == "fused":
        total += 2 * _FP32 * tokens * heads  # logarithms of the sums
    else:
        copies = 2 * samples * captions * width  # the caption's keys and values
        total += element * (_scores(config, batch, grid, index) + copies)
    # Mean and deviation of the norms; the block's modulation rows, stacked and unstacked.
    return total + 4 * _FP32 * tokens + 8 * _FP32 * samples * width


def _products(
    config: TransformerConfig,
    batch: MicroBatch,
    grid: tuple[int, int],
    index: int,
    element: int,
    kernel: AttentionKernel,
) -> float:
    """The results of one block's matrix products and attention; written out, the scores are such a product."""
    tokens = batch.batch_size * grid[0] * grid[1]
    keys = batch.batch_size * _kept(config, grid, index)
    # q, attended, out; the caption's q, attended, out; the MLP's two.
    per_token = 3 + 3 + MLP_RATIO + 1
    by_token = _convolves(config, grid, index) and not combines(keys, config.width)
    projected = batch.batch_size * _sources(config, grid, index) if by_token else keys
    scores = _scores(config, batch, grid, index) if kernel == "plain" else 0
    return float(element * (config.width * (per_token * tokens + 2 * projected) + scores))


def _ends(
    config: TransformerConfig, batch: MicroBatch, tokens: int, element: int, kernel: AttentionKernel
) -> float:
    """What lies before and behind the blocks: captions and their keys and values, the last norm, the output."""
    width = config.width
    real = batch.batch_size * batch.caption_tokens
    # Attention written out keeps other copies of the padded ones instead, which the blocks count.
    padded = batch.batch_size * batch.padded_caption_tokens if kernel == "fused" else 0
    keys_and_values = 2 * config.num_layers * width * element * (real + padded)
    projection = element * real * (config.caption_channels + 4 * width)
    patches = config.patch_size**2 * (config.in_channels * element + config.out_channels * (element + _FP32))
    output = tokens * (width * (2 * _FP32 + element) + patches)
    return float(keys_and_values + projection + output)


def _kept(config: TransformerConfig, grid: tuple[int, int], index: int) -> int:
    compression = config.kv_compression
    if compression is None or index not in compression.blocks or not compression.applies(grid):
        return grid[0] * grid[1]
    return num_kept_tokens(grid, compression.window)


def _scores(config: TransformerConfig, batch: MicroBatch, grid: tuple[int, int], index: int) -> int:
    """How many one block's self-attention and cross-attention have, and as many probabilities."""
    attended = _kept(config, grid, index) + batch.padded_caption_tokens
    return batch.batch_size * grid[0] * grid[1] * config.num_attention_heads * attended


def _sources(config: TransformerConfig, grid: tuple[int, int], index: int) -> int:
    """Tokens that keys, or values, of a sample are projected from."""
    if not _convolves(config, grid, index):
        return _kept(config, grid, index)
    rows, columns = replicated_grid(grid, config.kv_compression.window)  # type: ignore[union-attr]
    return rows * columns


def _convolves(config: TransformerConfig, grid: tuple[int, int], index: int) -> bool:
    compression = config.kv_compression
    return (
        compression is not None
        and index in compression.blocks
        and compression.applies(grid)
        and compression.operator == "conv"
    )
