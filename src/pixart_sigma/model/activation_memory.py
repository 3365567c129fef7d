"""How much memory the transformer takes beyond its weights and conditions when it is used, and where it saves some.

Legend: B batch (both branches of guidance), N image tokens, M key tokens after compression, D width.
Knows nothing of tensors, so that a plan can be made before torch is imported; `pieces.py` and `attention.py` keep to
the figures given here.
"""

from __future__ import annotations

from pixart_sigma.model.config import CAPTION_LENGTH_MULTIPLE, MLP_RATIO, TransformerConfig

MANY_ROWS = 16_384
"""B · N from which on tokens are worked on in pieces: guidance at 1024 px, 8192, is not cut."""
PIECE_ROWS = 8_192
"""B · N of a piece: matrix products of so many rows keep any device busy."""


def are_many(batch: int, num_tokens: int) -> bool:
    """Whether B x N tokens are worked on in pieces."""
    return batch * num_tokens > MANY_ROWS


def piece_tokens(batch: int) -> int:
    """Tokens of each sample in a piece."""
    return max(1, PIECE_ROWS // batch)


def combines(num_windows: int, width: int) -> bool:
    """Whether a convolution of so many windows, of all samples, is one product with its projection (D, D): the combined
    weights are then less to write than each token's projection.
    """
    return num_windows >= width


def activation_bytes(
    config: TransformerConfig,
    grid: tuple[int, int],
    batch: int,
    itemsize: int,
    *,
    plain_projections: bool = True,
) -> int:
    """The most that one call of `forward` holds beyond weights, inputs and conditions, without gradients.

    grid: (height, width) in tokens. batch: B, both branches of guidance if they run together. itemsize: bytes of an
    element. plain_projections: self-attention's are linear layers and nothing else, not in 8 bits nor with adapters.
    What the device's kernels take for themselves, and products in 8 bits, is left out.
    """
    num_tokens = grid[0] * grid[1]
    piece = min(1.0, piece_tokens(batch) / num_tokens) if are_many(batch, num_tokens) else 1.0
    # The unit is B · N · D elements. Input and residual of the block; a piece before and behind its norm, and both
    # sides of the GELU.
    mlp = 2 + piece * (2 + 2 * MLP_RATIO)
    added = 4.0  # input, attended, the same gated, their sum
    attention = max(
        _attention(config, grid, block, batch, piece, plain_projections) for block in range(config.num_layers)
    )
    return round(max(mlp, added, attention) * batch * num_tokens * config.width * itemsize)


def condition_bytes(
    config: TransformerConfig, batch: int, caption_tokens: int, num_steps: int, itemsize: int
) -> int:
    """What `prepare_captions` and `prepare_timesteps` make: keys and values of B captions for every block, and the
    modulation rows of all steps. caption_tokens: of the longest caption.
    """
    padded = -(-caption_tokens // CAPTION_LENGTH_MULTIPLE) * CAPTION_LENGTH_MULTIPLE
    captions = 2 * config.num_layers * batch * padded
    rows = num_steps * (6 * config.num_layers + 2)
    return (captions + rows) * config.width * itemsize


def _attention(
    config: TransformerConfig,
    grid: tuple[int, int],
    block: int,
    batch: int,
    piece: float,
    plain_projections: bool,
) -> float:
    """Units that self-attention of one block holds at its peak."""
    pieces = 3 * piece  # queries, attended, projected
    compression = config.kv_compression
    if compression is None or block not in compression.blocks or not compression.applies(grid):
        return 4 + pieces  # input, normed, keys, values
    height, width = compression.window
    rows, columns = -(-grid[0] // height), -(-grid[1] // width)
    num_tokens = grid[0] * grid[1]
    kept = rows * columns / num_tokens
    replicated = rows * height * columns * width / num_tokens
    edges = replicated if replicated > 1 else 0.0  # only then it is a copy
    every_token = compression.operator == "conv" or (compression.operator == "average" and config.qk_norm)
    windows = replicated if every_token else kept
    if compression.operator == "conv":
        is_one_product = plain_projections and combines(batch * rows * columns, config.width)
        combined = height * width * config.width / (batch * num_tokens)
        # A result is normed once more. Else each token is projected, normed if keys are, and laid out anew.
        values = combined + 2 * kept if is_one_product else 2 * replicated
        keys = 3 * replicated if config.qk_norm else values
    else:
        values = 2 * kept
        keys = 2 * replicated if config.qk_norm and compression.operator == "average" else values
    return 2 + max(edges + windows, windows + max(keys, kept + values), 2 * kept + pieces)
