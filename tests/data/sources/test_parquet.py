from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from encoded_pictures import noisy, written
from pixart_sigma.data.record import Record
from pixart_sigma.data.sources import Skipped, parquet, parquet_files, records
from pixart_sigma.errors import InvalidInput


def write(path: Path, columns: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=2)
    return path


def test_structs_and_columns_of_text_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_BATCH_ROWS", 2)
    images = [{"bytes": noisy(seed=index), "path": "same.png"} for index in range(5)]
    texts = [f"text {index}" for index in range(5)]
    columns = {
        "image": images,
        "text": texts,
        "label": list(range(5)),
        "more": [["a", "b"], [], None, [""], ["c"]],
    }
    write(tmp_path / "data/b.parquet", columns)
    write(tmp_path / "data/a.parquet", {"image": [noisy(seed=9)], "text": ["alone"]})
    origin = parquet_files(tmp_path / "data")
    assert origin.num_candidates == 6
    found = [outcome for outcome in records(origin) if isinstance(outcome, Record)]
    assert [record.key for record in found] == ["a.parquet:0", *(f"b.parquet:{index}" for index in range(5))]
    assert [record.image for record in found] == [noisy(seed=9), *(image["bytes"] for image in images)]
    assert [(caption.source, caption.text) for caption in found[1].captions] == [
        ("text", "text 0"),
        ("more", "a"),
        ("more", "b"),
    ]
    assert [(caption.source, caption.text) for caption in found[4].captions] == [("text", "text 3")]


def test_columns_can_be_chosen(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"picture": [noisy()], "text": ["a"], "url": ["b"]})
    (record,) = records(parquet_files(path, image="picture", sources=("text",)))
    assert isinstance(record, Record)
    assert [(caption.source, caption.text) for caption in record.captions] == [("text", "a")]


def test_rows_without_picture_or_caption_are_skipped(tmp_path: Path) -> None:
    images = [
        None,
        {"bytes": None, "path": "a.png"},
        {"bytes": noisy(), "path": None},
        {"bytes": b"x", "path": None},
    ]
    path = write(tmp_path / "a.parquet", {"image": images, "text": ["a", "b", None, "d"]})
    outcomes = [outcome for outcome in records(parquet_files(path)) if isinstance(outcome, Skipped)]
    assert [outcome.kind for outcome in outcomes] == ["corrupt", "corrupt", "no caption", "corrupt"]


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"text": ["a"]}, {}, "no column image; its columns are text"),
        ({"image": ["a"], "text": ["a"]}, {}, "neither bytes nor"),
        ({"image": [b"a"], "number": [1]}, {}, "no column of captions; its columns of text are none"),
        (
            {"image": [b"a"], "text": ["a"]},
            {"sources": ("dense",)},
            "no column of captions dense; .* are text",
        ),
    ],
)
def test_files_without_the_columns_are_an_error(
    tmp_path: Path, columns: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        parquet_files(write(tmp_path / "a.parquet", columns), **options)


def test_no_file_and_a_broken_file_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no Parquet file"):
        parquet_files(tmp_path)
    with pytest.raises(InvalidInput, match="cannot be read") as raised:
        parquet_files(written(tmp_path / "a.parquet", "hello"))
    assert "\n" not in str(raised.value)
