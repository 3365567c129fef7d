"""Small encoded pictures and records for the tests of data."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from pixart_sigma.data.record import Caption, Record, record_from_bytes


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def noisy(height: int = 20, width: int = 30, seed: int = 0, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return encoded(Image.fromarray(pixels), kind)


def disc(height: int, width: int, radius: int) -> Image.Image:
    """A black disc in the middle of white, drawn finely."""
    fine = Image.new("RGB", (4 * width, 4 * height), "white")
    middle = (2 * width, 2 * height)
    box = [
        middle[0] - 4 * radius,
        middle[1] - 4 * radius,
        middle[0] + 4 * radius - 1,
        middle[1] + 4 * radius - 1,
    ]
    ImageDraw.Draw(fine).ellipse(box, fill="black")
    return fine.resize((width, height), Image.Resampling.BOX)


def record(
    index: int, height: int = 20, width: int = 30, texts: tuple[str, ...] = ("a red house",)
) -> Record:
    captions = [Caption(text, f"source {place}") for place, text in enumerate(texts)]
    return record_from_bytes(f"key {index}", noisy(height, width, index), captions)


def written(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path
