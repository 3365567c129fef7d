"""A limit on memory as users write it. Knows nothing of what it is a limit on."""

import math
import re
from typing import Final, Literal

from pixart_sigma.errors import InvalidInput

MIB = 2**20
GIB = 2**30
Auto = Literal["auto"]
AUTO: Final = "auto"
"""What is free now, less a margin."""
_UNITS = {"mb": 10**6, "gb": 10**9, "mib": MIB, "gib": GIB}


def parse_limit(text: str) -> int | Auto:
    """ "6GB", "6000 MB", "5.5GiB" → bytes, or "auto" as it is. Raises InvalidInput."""
    cleaned = text.strip().lower()
    if cleaned == AUTO:
        return AUTO
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([mg]i?b)", cleaned)
    num_bytes = int(float(match[1]) * _UNITS[match[2]]) if match and len(match[1]) < 20 else 0
    if num_bytes < 1:
        raise InvalidInput(f"memory limit {text!r} is neither auto nor a size such as 6GB, 800MB or 5.5GiB")
    return num_bytes


def in_words(num_bytes: int) -> str:
    """Bytes → "812 MiB" or "2.50 GiB"; never less than they are."""
    if num_bytes < GIB:
        return f"{math.ceil(num_bytes / MIB)} MiB"
    return f"{math.ceil(num_bytes / GIB * 100) / 100:.2f} GiB"


def as_option(num_bytes: int) -> str:
    """Bytes → what `parse_limit` takes for at least as many."""
    return f"{math.ceil(num_bytes / MIB)}MiB"
