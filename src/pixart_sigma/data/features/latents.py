"""Cached latents.

Legend: B pictures, R rows, C latent channels, H, W pixels, h, w latents.

    latents_512_1a2b3c4d   {data, height, width}: the posterior's mean (C, h, w), unscaled, fp16, of the picture in its
                           bucket of base 512; null where there is none

Several processes can share the work. Knows nothing of the transformer, and does not scale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixart_sigma.data.features.column import from_bytes, open_column
from pixart_sigma.data.images import CorruptImage, bucket_crop, to_pixels
from pixart_sigma.data.table import ALONE, Report, Share, Table
from pixart_sigma.encoders.autoencoder import Autoencoder

Buckets = Literal["aspect", "square"]
Skip = Callable[[str, str], None]

_MAX_PIXELS = 2**20  # encoded at once: with SDXL's autoencoder a few GB of activations


def latents_column(base: int, buckets: Buckets, digest: str) -> str:
    """The name of the column of latents at a base resolution, in the base's aspect buckets or in its square alone."""
    return f"latents_{base}{'' if buckets == 'aspect' else buckets}_{digest[:8]}"


class LatentsColumn:
    """A finished column of latents, open for reading."""

    def __init__(self, table: Table, base: int, buckets: Buckets, digest: str) -> None:
        """Raises InvalidInput if the table has no such column, if it is unfinished, or if other weights made it."""
        self._table = table
        self.name = latents_column(base, buckets, digest)
        open_column(table, self.name, _latents_metadata(base, buckets, digest), "latents")

    def present(self) -> NDArray[np.bool_]:
        """(R,) for the table's R rows: False where the picture has no latents."""
        heights = self._table.read([f"{self.name}.height"]).column(0)
        present: NDArray[np.bool_] = heights.is_valid().to_numpy()
        return present

    def take(self, rows: Sequence[int]) -> list[Tensor | None]:
        """Rows → latents (C, h, w) fp16 of each, unscaled, or None where there are none."""
        values = self._table.take(rows, [self.name]).column(0).to_pylist()
        return [None if value is None else _latents(value) for value in values]


def add_latents(
    table: Table,
    autoencoder: Autoencoder,
    digest: str,
    bucket_of: Callable[[int, int], tuple[int, int]],
    base: int,
    buckets: Buckets = "aspect",
    max_pixels: int = _MAX_PIXELS,
    share: Share = ALONE,
    report: Report | None = None,
    skip: Skip | None = None,
) -> LatentsColumn:
    """Open the column of latents, made or completed first where need be.

    bucket_of: a picture's (height, width) → its bucket's. digest: `autoencoder_digest` of the autoencoder given.
    Pictures of one bucket are encoded together, at most `max_pixels` at a time, under bf16 autocast.
    `skip(key, reason)` is told of pictures that get none; `report(done, total)` counts fragments.
    Raises InvalidInput as `Table.add_column` does.
    """
    import pyarrow as pa

    column_type = pa.struct([("data", pa.large_binary()), ("height", pa.int32()), ("width", pa.int32())])

    def compute(rows: Any) -> Iterator[Any]:
        sizes = zip(rows["height"].to_pylist(), rows["width"].to_pylist(), strict=True)
        shapes = [bucket_of(height, width) for height, width in sizes]
        values: list[dict[str, Any] | None] = [None] * len(shapes)
        for indices, pixels, reasons in _pixel_batches(rows["image"], shapes, max_pixels):
            encoded = list(_encode(autoencoder, pixels)) if indices else []
            for index, latents in zip(indices, encoded, strict=True):
                if np.isfinite(latents).all():
                    _, height, width = latents.shape
                    values[index] = {"data": latents.tobytes(), "height": height, "width": width}
                else:
                    reasons[index] = "its latents are not finite in fp16"
            for index, reason in reasons.items():
                if skip:
                    skip(rows["key"][index].as_py(), reason)
        yield pa.array(values, column_type)

    table.add_column(
        latents_column(base, buckets, digest),
        column_type,
        _latents_metadata(base, buckets, digest),
        ["key", "image", "height", "width"],
        compute,
        share=share,
        report=report,
    )
    return LatentsColumn(table, base, buckets, digest)


def _latents_metadata(base: int, buckets: Buckets, digest: str) -> dict[str, str]:
    return {"autoencoder": digest, "base": str(base), "buckets": buckets, "precision": "fp16"}


def _pixel_batches(
    images: Any, shapes: list[tuple[int, int]], max_pixels: int
) -> Iterator[tuple[list[int], NDArray[np.uint8], dict[int, str]]]:
    """(indices of pictures of one bucket, pixels (B, H, W, 3), reasons of those left out), decoded one batch ahead."""
    batches = [
        (shape, members[start : start + at_once])
        for shape, members in _members(shapes).items()
        for at_once in [max(1, max_pixels // (shape[0] * shape[1]))]
        for start in range(0, len(members), at_once)
    ]

    def crop(index: int) -> NDArray[np.uint8] | str:
        try:
            return bucket_crop(images[index].as_py(), *shapes[index])
        except CorruptImage as error:
            return str(error)

    with ThreadPoolExecutor() as pool:
        ahead = [pool.map(crop, members) for _, members in batches[:1]]
        for number, (_, members) in enumerate(batches):
            ahead += [pool.map(crop, following) for _, following in batches[number + 1 : number + 2]]
            cropped = dict(zip(members, ahead.pop(0), strict=True))
            pixels = {index: found for index, found in cropped.items() if not isinstance(found, str)}
            reasons = {index: found for index, found in cropped.items() if isinstance(found, str)}
            yield list(pixels), np.array(list(pixels.values())), reasons


def _members(shapes: list[tuple[int, int]]) -> dict[tuple[int, int], list[int]]:
    members: dict[tuple[int, int], list[int]] = {}
    for index, shape in enumerate(shapes):
        members.setdefault(shape, []).append(index)
    return members


def _encode(autoencoder: Autoencoder, images: NDArray[np.uint8]) -> NDArray[np.float16]:
    """images (B, H, W, 3) uint8 → the posterior's mean (B, C, h, w) fp16, unscaled."""
    model = autoencoder.model
    pixels = to_pixels(images, model.device)
    # bf16 halves the time; its rounding is far below the autoencoder's own error.
    with torch.no_grad(), torch.autocast(model.device.type, torch.bfloat16):
        mean, _ = model.encode(pixels)
    latents: NDArray[np.float16] = mean.to(torch.float16).cpu().numpy().astype("<f2", copy=False)
    return latents


def _latents(value: dict[str, Any]) -> Tensor:
    return from_bytes(value["data"], torch.float16).reshape(-1, value["height"], value["width"])
