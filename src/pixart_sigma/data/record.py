"""What a training set holds of a picture: its file as it was, its captions and its size.

Knows nothing of where records come from or of how they are stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from pixart_sigma.data.images import decode
from pixart_sigma.errors import PixArtSigmaError


class NoCaption(PixArtSigmaError):
    """A picture without a caption; the message is the reason."""


@dataclass(frozen=True)
class Caption:
    """A caption and what kind of caption it is, such as "prompt" or "dense"."""

    text: str
    source: str


@dataclass(frozen=True)
class Record:
    """A picture of a training set. `key` is unique in its table; height and width are those of the upright picture."""

    key: str
    captions: tuple[Caption, ...]
    height: int
    width: int
    sha256: str
    image: bytes  # the encoded file as it was: JPEG, PNG, WEBP or AVIF


def record_from_bytes(key: str, image: bytes, captions: Iterable[Caption]) -> Record:
    """A record whose picture was decoded to its end, and whose captions are stripped, without the empty ones.

    Raises CorruptImage, or NoCaption if no caption is left.
    """
    stripped = (Caption(caption.text.strip(), caption.source) for caption in captions)
    kept = tuple(caption for caption in stripped if caption.text)
    if not kept:
        raise NoCaption("no caption")
    upright = decode(image)
    return Record(key, kept, upright.height, upright.width, hashlib.sha256(image).hexdigest(), image)
