"""What the columns of features have in common: the check on opening, and 16-bit numbers from bytes.

Numbers are little-endian. Knows nothing of encoders.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pixart_sigma.data.table import Table
from pixart_sigma.errors import InvalidInput


def open_column(table: Table, name: str, wanted: dict[str, str], what: str) -> dict[str, str]:
    """The metadata of a finished column of latents or embeddings. Raises InvalidInput if it is not what is wanted."""
    if name not in table.columns:
        others = [column for column in table.columns if column.startswith(f"{what}_")]
        raise InvalidInput(
            f"table {table.path} has no {name}, made by these weights; it has {', '.join(others) or f'no {what}'}: "
            "cache them first"
        )
    metadata = table.column_metadata(name)
    for key, value in wanted.items():
        if metadata.get(key) != value:
            raise InvalidInput(
                f"column {name} of table {table.path} has {key} {metadata.get(key)}, not {value}; drop it, and it is "
                "made anew"
            )
    missing = len(table.missing_fragments(name))
    if missing:
        raise InvalidInput(
            f"column {name} of table {table.path} is unfinished, {missing} fragments lack it; cache {what} again, "
            "which goes on from there"
        )
    return metadata


def from_bytes(data: bytes, dtype: torch.dtype) -> Tensor:
    """The numbers of a 16-bit dtype, in one dimension."""
    # Copied, since torch wants memory that it may write to.
    bits = np.frombuffer(data, "<i2").astype(np.int16)
    return torch.from_numpy(bits).view(dtype)
