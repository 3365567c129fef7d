"""Hugging Face Parquet files: a column of pictures and columns of captions.

Pictures are bytes, or structs with a field `bytes`. Every column of strings, or of lists of strings, is a source of
captions, named by the column. A row's key is its file and its number in it. Files are read a batch of rows at a time.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pixart_sigma.data.images import CorruptImage
from pixart_sigma.data.record import Caption
from pixart_sigma.data.sources.origin import Candidate, Origin, files_fingerprint, wanted_sources
from pixart_sigma.encoders.pretrained import first_line
from pixart_sigma.errors import InvalidInput

_BATCH_ROWS = 32


def parquet_files(path: Path, image: str = "image", sources: tuple[str, ...] | None = None) -> Origin:
    """The rows of a Parquet file, or of all in a folder and its subfolders.

    `image` is the pictures' column; `sources` keeps these columns' captions only. Raises InvalidInput if there is no
    file, if one cannot be read, or if it lacks the columns.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    root = path if path.is_dir() else path.parent
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path] if path.is_file() else []
    if not files:
        raise InvalidInput(
            f"{path} is no Parquet file and has none; name a file or a folder of .parquet files"
        )
    columns: dict[Path, list[str]] = {}
    num_rows = 0
    for file in files:
        try:
            with pq.ParquetFile(file) as opened:
                columns[file] = _caption_columns(file, opened.schema_arrow, image, sources)
                num_rows += opened.metadata.num_rows
        except (OSError, pa.ArrowException) as error:
            raise InvalidInput(f"{file} cannot be read ({first_line(error)}); fetch it again") from error

    def candidates(known: Container[str]) -> Iterator[Candidate]:
        for file in files:
            name = file.relative_to(root).as_posix()
            with pq.ParquetFile(file) as opened:
                number = 0
                for batch in opened.iter_batches(_BATCH_ROWS, columns=[image, *columns[file]]):
                    for row in batch.to_pylist():
                        picture = row.pop(image)
                        yield Candidate(f"{name}:{number}", partial(_bytes, picture), partial(_captions, row))
                        number += 1

    settings = {"image": image, **wanted_sources(sources)}
    names = [file.relative_to(root).as_posix() for file in files]
    return Origin(files_fingerprint("parquet", root, names, **settings), num_rows, candidates)


def _caption_columns(file: Path, schema: Any, image: str, sources: tuple[str, ...] | None) -> list[str]:
    if image not in schema.names:
        raise InvalidInput(f"{file} has no column {image}; its columns are {', '.join(schema.names)}")
    if not _is_picture(schema.field(image).type):
        raise InvalidInput(
            f"column {image} of {file} is {schema.field(image).type}, neither bytes nor a struct with bytes; "
            "name the pictures' column"
        )
    texts = [field.name for field in schema if _is_text(field.type)]
    missing = [source for source in sources or () if source not in texts]
    if missing or not texts:
        raise InvalidInput(
            f"{file} has no column of captions {missing[0] if missing else ''}".rstrip()
            + f"; its columns of text are {', '.join(texts) or 'none'}"
        )
    return [text for text in texts if sources is None or text in sources]


def _is_picture(column: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(column) and column.get_field_index("bytes") >= 0:
        column = column.field("bytes").type
    return bool(pa.types.is_binary(column) or pa.types.is_large_binary(column))


def _is_text(column: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_list(column) or pa.types.is_large_list(column) or pa.types.is_dictionary(column):
        column = column.value_type
    return bool(pa.types.is_string(column) or pa.types.is_large_string(column))


def _bytes(picture: Any) -> bytes:
    data = picture.get("bytes") if isinstance(picture, dict) else picture
    if not data:
        raise CorruptImage("the row has no bytes of a picture")
    return bytes(data)


def _captions(row: dict[str, Any]) -> list[Caption]:
    lists = {source: value if isinstance(value, list) else [value] for source, value in row.items()}
    return [Caption(text, source) for source, texts in lists.items() for text in texts if text is not None]
