"""Which weights of the transformer are in 8 bits where int8 is asked for, and what that takes.

Knows nothing of tensors.
"""

from __future__ import annotations

import re

from pixart_sigma.errors import InvalidInput
from pixart_sigma.model.config import MLP_RATIO, TransformerConfig

LEVELS = 127
"""On either side of zero; -128 is not used, so that both sides are alike."""
WIDTH_MULTIPLE = 8
"""What cuBLAS asks of both sizes of a matrix of whole numbers."""
MOST_ROWS = 4096
"""Rows multiplied at once: enough to keep a GPU busy."""
_PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")
LINEAR_LAYERS = (
    *(f"{attention}.{name}" for attention in ("attn1", "attn2") for name in _PROJECTIONS),
    "ff.net.0.proj",
    "ff.net.2",
)
"""Of a block."""
_WEIGHT = re.compile(r"transformer_blocks\.\d+\.(?:" + "|".join(map(re.escape, LINEAR_LAYERS)) + r")\.weight")
_SCALE_BYTES = 4
_PRODUCT_BYTES = 4 + 4  # as whole numbers, and scaled


def is_in_8_bits(name: str) -> bool:
    """Whether a parameter of the transformer is, by its name."""
    return _WEIGHT.fullmatch(name) is not None


def check_int8_width(config: TransformerConfig) -> None:
    """Raises InvalidInput for a transformer whose blocks have layers of sizes that are not taken."""
    if config.width % WIDTH_MULTIPLE:  # all sizes are multiples of it
        raise InvalidInput(
            f"int8 multiplies layers whose sizes are multiples of {WIDTH_MULTIPLE}, and this model's width is "
            f"{config.width}; leave --int8 out"
        )


def weight_bytes(out_features: int, in_features: int) -> int:
    """What a weight of this shape takes in 8 bits."""
    return out_features * (in_features + _SCALE_BYTES)


def product_bytes(config: TransformerConfig, num_rows: int) -> int:
    """What the largest product holds beyond its rows and result. num_rows: samples times tokens."""
    levels = 1
    return min(num_rows, MOST_ROWS) * config.width * MLP_RATIO * (_PRODUCT_BYTES + levels)
