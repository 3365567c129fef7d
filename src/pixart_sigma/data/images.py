"""Encoded pictures → pixels: decoded upright, in RGB, resized to just cover a bucket and cropped to it.

Legend: B images, H, W pixels. Knows nothing of where the pictures come from or of what is made of them.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from pixart_sigma.encoders.pretrained import first_line
from pixart_sigma.errors import PixArtSigmaError

# The formats that are read; others are open to attacks, or to several meanings.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF")

_ORIENTATION_TAG = 0x0112  # EXIF 2.3, section 4.6.4
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class CorruptImage(PixArtSigmaError):
    """Bytes that are no whole picture; the message is the reason."""


def decode(image_bytes: bytes) -> Image.Image:
    """An encoded picture → the whole of it, upright, in its own colour mode. Raises CorruptImage."""
    try:
        image: Image.Image = Image.open(io.BytesIO(image_bytes), formats=FORMATS)
        image.load()
    except UnidentifiedImageError as error:
        raise CorruptImage(f"not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} picture") from error
    except Exception as error:  # Pillow raises nearly anything for a broken file, SyntaxError too
        raise CorruptImage(first_line(error)) from error
    transpose = _UPRIGHT.get(_orientation(image))
    return image if transpose is None else image.transpose(transpose)


def bucket_crop(image_bytes: bytes, height: int, width: int) -> NDArray[np.uint8]:
    """An encoded picture → (height, width, 3) uint8: the largest centred part of that shape, resized with Lanczos.

    Never stretched: the part's sides are fractions of pixels. Transparency is laid over white. Raises CorruptImage.
    """
    image = _as_rgb(decode(image_bytes))
    part_width = min(image.width, image.height * width / height)
    part_height = min(image.height, image.width * height / width)
    left, top = (image.width - part_width) / 2, (image.height - part_height) / 2
    # The filter sees the pixels beside the box, so this is a resize and then a crop, without the crop's rounding.
    box = (left, top, min(left + part_width, image.width), min(top + part_height, image.height))
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS, box=box))


def to_pixels(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    """images (B, H, W, 3) uint8 → (B, 3, H, W) fp32 in [-1, 1]."""
    stacked = torch.from_numpy(np.array(images)).to(device)
    return stacked.permute(0, 3, 1, 2).float() / 127.5 - 1


def _orientation(image: Image.Image) -> Any:
    try:
        return image.getexif().get(_ORIENTATION_TAG)
    except Exception:  # a picture with broken EXIF is a picture still
        return None


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip at 255
        grey = np.asarray(image).astype(np.float64) / 257
        return Image.fromarray(grey.clip(0, 255).round().astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    over = Image.new("RGBA", image.size, "white")
    over.alpha_composite(image.convert("RGBA"))
    return over.convert("RGB")
