"""Sizes: what users write, what the model can take, how many tokens it costs, and the training buckets.

Knows nothing of tensors. Sizes are (height, width) in pixels, except where users write `WxH` or `W:H`.
"""

import json
import math
import re
from functools import cache
from importlib.resources import files

from pixart_sigma.errors import InvalidInput

LATENT_SCALE = 8  # pixels per latent, along a side: the autoencoders of SD and SDXL
PATCH_SIZE = 2  # latents per token, along a side: every released PixArt is an XL/2
TOKEN_SIDE = LATENT_SCALE * PATCH_SIZE
MAX_SIDE = 8192  # the longest side of any training bucket, that of the 4096 base at 1:4
MAX_ASPECT = 4  # the narrowest training bucket is 1:4, the widest 4:1
BASES = {
    "256": 256,
    "512": 512,
    "1k": 1024,
    "1024": 1024,
    "2k": 2048,
    "2048": 2048,
    "uhd": 2880,
    "2880": 2880,
    "4k": 4096,
    "4096": 4096,
}
"""What users call the bases that have training buckets → the side in pixels of their square."""


def parse_size(text: str) -> tuple[int, int]:
    """`WxH`, such as "1024x576", → (height, width) in pixels, as `check_size` allows. Raises InvalidInput."""
    match = re.fullmatch(r"(\d+)x(\d+)", text.strip().lower())
    if match is None:
        raise InvalidInput(f"size {text!r} is not WIDTHxHEIGHT in pixels; write for example --size 512x288")
    width, height = int(match[1]), int(match[2])
    check_size(height, width)
    return height, width


def check_size(height: int, width: int) -> None:
    """Raises InvalidInput unless both sides are multiples of 16 between 16 and 8192 pixels."""
    remedy = f"(--size {_nearest_side(width)}x{_nearest_side(height)})"
    for name, side in (("height", height), ("width", width)):
        if not TOKEN_SIDE <= side <= MAX_SIDE:
            nearest = _nearest_side(side)
            raise InvalidInput(
                f"{name} {side} is outside {TOKEN_SIDE} to {MAX_SIDE}; nearest: {nearest} {remedy}"
            )
        below = side - side % TOKEN_SIDE
        if side != below:
            nearest_two = f"{below} or {below + TOKEN_SIDE}"
            raise InvalidInput(
                f"{name} {side} is not a multiple of {TOKEN_SIDE}; nearest: {nearest_two} {remedy}"
            )


def _nearest_side(side: int) -> int:
    rounded = (side + TOKEN_SIDE // 2) // TOKEN_SIDE * TOKEN_SIDE
    return min(max(rounded, TOKEN_SIDE), MAX_SIDE)


def num_image_tokens(height: int, width: int) -> int:
    """Image tokens of a picture of height x width pixels, both multiples of 16."""
    return (height // TOKEN_SIDE) * (width // TOKEN_SIDE)


def parse_aspect(text: str) -> float:
    """`W:H`, such as "16:9", → height / width. Raises InvalidInput beyond 4:1 and 1:4."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?):(\d+(?:\.\d+)?)", text.strip())
    if match is None or not float(match[1]) or not float(match[2]):
        raise InvalidInput(f"aspect {text!r} is not WIDTH:HEIGHT; write for example --aspect 16:9")
    aspect = float(match[2]) / float(match[1])
    if not 1 / MAX_ASPECT <= aspect <= MAX_ASPECT:
        raise InvalidInput(
            f"aspect {text} is beyond {MAX_ASPECT}:1 or 1:{MAX_ASPECT}, the training buckets' limits; "
            "choose one between them, or give the pixels with --size"
        )
    return aspect


def parse_base(text: str) -> int:
    """A base by name or in pixels, such as "4k" or "2880", → the side of its square. Raises InvalidInput."""
    base = BASES.get(text.strip().lower())
    if base is None:
        raise InvalidInput(f"unknown base {text!r}; one of {', '.join(BASES)}")
    return base


@cache
def aspect_buckets(base: int) -> dict[float, tuple[int, int]]:
    """The training buckets of a base resolution in pixels: nominal height / width → (height, width).

    Source: the tables of the released models. Raises InvalidInput for a base without a table.
    """
    tables = json.loads(files("pixart_sigma").joinpath("aspect_ratio_buckets.json").read_text("utf-8"))
    if str(base) not in tables:
        bases = ", ".join(name for name in tables if name.isdigit())
        raise InvalidInput(
            f"base {base} has no aspect-ratio buckets (bases that have: {bases}); use --size instead"
        )
    return {float(ratio): (height, width) for ratio, (height, width) in tables[str(base)].items()}


def nearest_bucket(aspect: float, base: int) -> tuple[int, int]:
    """height / width and a base → the bucket (height, width) that training would have put it in.

    The official rule: least |difference| to the table's nominal ratio, the first of equals.
    """
    if not math.isfinite(aspect) or aspect <= 0:
        raise InvalidInput(f"aspect {aspect} is not a positive number; give height / width")
    buckets = aspect_buckets(base)
    return buckets[min(buckets, key=lambda ratio: abs(ratio - aspect))]
