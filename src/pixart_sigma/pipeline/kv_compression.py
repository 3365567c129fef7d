"""Key/value compression as a call asks for it: a window, how it is reduced to one token, and in which blocks.

Knows nothing of tensors, nor how many blocks the model has or whether it has the weights that `conv` needs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import get_args

from pixart_sigma.errors import InvalidInput
from pixart_sigma.model.config import CompressionOperator
from pixart_sigma.weights.compression import NamedBlocks

OPERATORS: tuple[CompressionOperator, ...] = get_args(CompressionOperator)
BLOCK_NAMES: tuple[NamedBlocks, ...] = get_args(NamedBlocks)
MAX_WINDOW_SIDE = 4  # 4x4 is the strongest compression in use
_MOST_BLOCKS = 1000  # more than any model has; a longer range is a slip, and would be written out


@dataclass(frozen=True)
class KVCompressionRequest:
    """A window (height, width) in tokens, an operator, and blocks by name or by their numbers from 0.

    average, nearest and discard need no training; conv takes the weights that the checkpoint has. Raises InvalidInput
    for a window that compresses nothing or is larger than 4x4, and for an unknown operator or name.
    """

    window: tuple[int, int]
    operator: CompressionOperator = "average"
    blocks: NamedBlocks | tuple[int, ...] = "deep"

    def __post_init__(self) -> None:
        _check_window(self.window)
        if self.operator not in OPERATORS:
            raise InvalidInput(
                f"unknown compression operator {self.operator!r}; one of {', '.join(OPERATORS)}"
            )
        if isinstance(self.blocks, str):
            if self.blocks not in BLOCK_NAMES:
                raise InvalidInput(_not_blocks(self.blocks))
        elif not self.blocks or len(set(self.blocks)) != len(self.blocks) or min(self.blocks) < 0:
            raise InvalidInput(_not_blocks(", ".join(map(str, self.blocks))))

    def __str__(self) -> str:
        """For people and for a picture's metadata: "2x2 average, blocks deep"."""
        blocks = self.blocks if isinstance(self.blocks, str) else ",".join(map(str, self.blocks))
        return f"{self.window[0]}x{self.window[1]} {self.operator}, blocks {blocks}"


def parse_kv_compression(window: str, operator: str | None, blocks: str | None) -> KVCompressionRequest:
    """`HxW`, an operator, and blocks such as "deep", "14-27" or "0,3,5" → the request. Raises InvalidInput."""
    request = KVCompressionRequest(_parse_window(window))
    return KVCompressionRequest(
        request.window,
        request.operator if operator is None else operator,  # type: ignore[arg-type]
        request.blocks if blocks is None else _parse_blocks(blocks),
    )


def _check_window(window: tuple[int, int]) -> None:
    if len(window) != 2 or window == (1, 1) or not all(1 <= side <= MAX_WINDOW_SIDE for side in window):
        raise InvalidInput(
            f"compression window {'x'.join(map(str, window))} is not between 1x2 and "
            f"{MAX_WINDOW_SIDE}x{MAX_WINDOW_SIDE}; 2x2 is a good choice"
        )


def _parse_window(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text.strip().lower())
    if match is None:
        raise InvalidInput(
            f"compression window {text!r} is not HEIGHTxWIDTH in tokens; write for example 2x2"
        )
    return int(match[1]), int(match[2])


def _parse_blocks(text: str) -> NamedBlocks | tuple[int, ...]:
    named = next((name for name in BLOCK_NAMES if name == text.strip().lower()), None)
    if named is not None:
        return named
    numbers: list[int] = []
    for item in text.split(","):
        match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", item.strip())
        if match is None:
            raise InvalidInput(_not_blocks(text))
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last < _MOST_BLOCKS:
            raise InvalidInput(_not_blocks(text))
        numbers += range(first, last + 1)
    return tuple(numbers)


def _not_blocks(text: str) -> str:
    return (
        f"compression blocks {text!r} are neither {', '.join(BLOCK_NAMES)} nor numbers from 0, each once; "
        "write for example 14-27 or 0,3,5"
    )
