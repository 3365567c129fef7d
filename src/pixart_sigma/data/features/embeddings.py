"""Cached embeddings of captions.

Legend: B captions, L caption tokens, E channels of the text encoder.

    embeddings_300_1a2b3c4d   [data]: (L, E) in bf16 or fp16, one for each caption of the row, without padding

Several processes can share the work. Knows nothing of the transformer.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any, Literal

import torch
from torch import Tensor

from pixart_sigma.data.features.column import from_bytes, open_column
from pixart_sigma.data.table import ALONE, Report, Share, Table
from pixart_sigma.encoders.text import TextEncoder
from pixart_sigma.errors import InvalidInput

Precision = Literal["bf16", "fp16"]

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_MAX_EMBEDDING_BYTES = 2**28  # encoded before they leave the device, were all captions of the greatest length


def embeddings_column(digest: str, caption_length: int) -> str:
    """The name of the column of embeddings of captions cut to `caption_length` tokens."""
    return f"embeddings_{caption_length}_{digest[:8]}"


class EmbeddingsColumn:
    """A finished column of embeddings, open for reading."""

    def __init__(self, table: Table, digest: str, caption_length: int) -> None:
        """Raises InvalidInput if the table has no such column, if it is unfinished, or if another encoder made it."""
        self._table = table
        self.name = embeddings_column(digest, caption_length)
        wanted = {"text_encoder": digest, "caption_length": str(caption_length)}
        metadata = open_column(table, self.name, wanted, "embeddings")
        if metadata.get("precision") not in _DTYPES:
            raise InvalidInput(
                f"column {self.name} of table {table.path} has precision {metadata.get('precision')!r}, not bf16 or "
                "fp16; drop it, and it is made anew"
            )
        self.dtype = _DTYPES[metadata["precision"]]
        self.channels = int(metadata["channels"])

    def take(self, rows: Sequence[int], captions: Sequence[int]) -> list[Tensor]:
        """Rows and, for each, the place of one of its captions → that caption's embedding (L, E)."""
        values = self._table.take(rows, [self.name]).column(0)
        chosen = [value[caption].as_py() for value, caption in zip(values, captions, strict=True)]
        return [from_bytes(data, self.dtype).reshape(-1, self.channels) for data in chosen]


def add_embeddings(
    table: Table,
    text_encoder: TextEncoder,
    digest: str,
    precision: Precision = "bf16",
    share: Share = ALONE,
    report: Report | None = None,
) -> EmbeddingsColumn:
    """Open the column of embeddings of all captions, as they are, made or completed first where need be.

    digest: `text_encoder_digest` of the encoder given. bf16 is encoded under autocast, fp16 in the encoder's own
    precision. Warns (UserWarning) once if captions were cut. Raises InvalidInput as `Table.add_column` does, or if
    an embedding is not finite.
    """
    import pyarrow as pa

    column_type = pa.list_(pa.large_binary())
    length = text_encoder.caption_length
    channels = int(text_encoder.model.config.d_model)
    at_once = max(1, _MAX_EMBEDDING_BYTES // (2 * length * channels))
    num_cut = 0

    def compute(rows: Any) -> Iterator[Any]:
        nonlocal num_cut
        captions = [[caption["text"] for caption in row] for row in rows["captions"].to_pylist()]
        texts = sorted({text for row in captions for text in row}, key=len)
        encoded: dict[str, bytes] = {}
        for start in range(0, len(texts), at_once):
            part = texts[start : start + at_once]
            embeddings, cut = _encode_texts(text_encoder, part, _DTYPES[precision])
            encoded.update(zip(part, embeddings, strict=True))
            num_cut += cut
        yield pa.array([[encoded[text] for text in row] for row in captions], column_type)

    metadata = {
        "text_encoder": digest,
        "caption_length": str(length),
        "channels": str(channels),
        "precision": precision,
    }
    name = embeddings_column(digest, length)
    table.add_column(name, column_type, metadata, ["captions"], compute, share=share, report=report)
    if num_cut:
        warnings.warn(f"{num_cut} captions were cut to {length} tokens", stacklevel=2)
    return EmbeddingsColumn(table, digest, length)


def _encode_texts(text_encoder: TextEncoder, texts: list[str], dtype: torch.dtype) -> tuple[list[bytes], int]:
    """Captions → the embedding (L, E) of each in `dtype`, as bytes, and how many were cut."""
    device = text_encoder.model.device.type
    autocast = torch.autocast(device, dtype) if dtype == torch.bfloat16 else nullcontext()
    with warnings.catch_warnings(record=True) as caught, torch.no_grad(), autocast:
        warnings.simplefilter("always", UserWarning)
        embeddings, mask = text_encoder.encode(texts)
    rounded = embeddings.to(dtype)
    if not rounded.isfinite().all():
        raise InvalidInput(f"caption embeddings overflow {dtype}; cache them in bf16")
    bits = rounded.cpu().view(torch.int16).numpy().astype("<i2", copy=False)
    lengths = mask.sum(1).tolist()
    others = [each for each in caught if "is cut to" not in str(each.message)]
    for each in others:
        warnings.warn(each.message, each.category, stacklevel=2)
    return [row[:length].tobytes() for row, length in zip(bits, lengths, strict=True)], len(caught) - len(
        others
    )
