"""How a text encoder is held while it encodes: whole in memory, in its files, or in fewer bits.

Names and what they need, so that a wrong one is refused before anything heavy is imported. Knows nothing of tensors.
"""

from __future__ import annotations

from importlib.util import find_spec
from types import MappingProxyType
from typing import Literal, get_args

from pixart_sigma.errors import InvalidInput, MissingDependency

Quantisation = Literal["int8", "nf4", "torchao-int8"]
TextHold = Literal["resident", "streamed", "int8", "nf4", "torchao-int8"]

# torchao's 4 bits are not offered: on the CPU they do not load, or save nothing.
QUANTISATIONS: tuple[Quantisation, ...] = get_args(Quantisation)
TEXT_HOLDS: MappingProxyType[TextHold, str] = MappingProxyType(
    {
        "resident": "all weights in memory; exact",
        "streamed": "one block in memory at a time, the others stay in their files; exact",
        "int8": "8 bits of bitsandbytes, what passes through included; not exact",
        "nf4": "4 bits of bitsandbytes; the smallest that stays in memory, and the least exact",
        "torchao-int8": "8-bit weights of torchao; not exact",
    }
)
"""The name of each, and what it means."""

_PACKAGES: dict[str, tuple[str, ...]] = {
    # transformers loads for bitsandbytes with accelerate's help.
    "int8": ("bitsandbytes", "accelerate"),
    "nf4": ("bitsandbytes", "accelerate"),
    "torchao-int8": ("torchao",),
}


def check_text_hold(held: str) -> None:
    """Raises InvalidInput for a name that is none, MissingDependency if a package that it needs is not installed."""
    if held not in TEXT_HOLDS:
        raise InvalidInput(f"unknown hold of the text encoder {held!r}; one of {', '.join(TEXT_HOLDS)}")
    package = missing_package(held)
    if package is not None:
        raise MissingDependency(
            f"a text encoder in {held} needs the package {package}; install it (pip install {package}), "
            "or have the encoder streamed, which needs none and is exact"
        )


def is_exact(held: TextHold) -> bool:
    """Whether embeddings are those of the resident encoder, bit for bit."""
    return held not in QUANTISATIONS


def missing_package(held: str) -> str | None:
    """The first package that a hold needs and that is not installed."""
    return next((package for package in _PACKAGES.get(held, ()) if not _installed(package)), None)


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # imported by somebody who gave it no spec, or barred
        return False
