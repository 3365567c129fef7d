"""Which blocks of a transformer compress keys and values, by name or by number. Knows nothing of tensors."""

from __future__ import annotations

from typing import Literal

from pixart_sigma.errors import InvalidInput

NamedBlocks = Literal["shallow", "middle", "deep", "all"]

# Where the compressing half of the paper's 28 blocks begins (Table 3a), counted from 0: the released configuration
# lists 14 … 27 for "deep", and 7 … 20 is the middle only when counted so.
PAPER_NUM_BLOCKS = 28
PAPER_FIRST_BLOCK = {"shallow": 1, "middle": 7, "deep": 14}


def compressed_blocks(blocks: NamedBlocks | tuple[int, ...], num_layers: int) -> tuple[int, ...]:
    """Blocks by name or number → their numbers from 0, in the proportions of the paper's Table 3a.

    Half of the blocks each (rounded up), of 28: shallow 1 … 14, middle 7 … 20, deep 14 … 27.
    Raises InvalidInput for an unknown name and for numbers beyond the model.
    """
    if isinstance(blocks, str):
        if blocks == "all":
            return tuple(range(num_layers))
        if blocks not in PAPER_FIRST_BLOCK:
            names = ", ".join((*PAPER_FIRST_BLOCK, "all"))
            raise InvalidInput(f"unknown blocks {blocks!r}; one of {names}, or their numbers")
        first = num_layers * PAPER_FIRST_BLOCK[blocks] // PAPER_NUM_BLOCKS
        return tuple(range(first, first + num_layers - num_layers // 2))
    beyond = [block for block in blocks if not 0 <= block < num_layers]
    if beyond:
        raise InvalidInput(
            f"kv_compression names blocks {beyond}; the model has 0 to {num_layers - 1} (blocks = 'deep')"
        )
    return tuple(blocks)
