import json
from collections.abc import Container, Iterator
from pathlib import Path

import pytest

from encoded_pictures import noisy
from pixart_sigma.data.ingest import ingest, skipped_file
from pixart_sigma.data.record import Caption
from pixart_sigma.data.sources import Candidate, Origin
from pixart_sigma.data.table import Table
from pixart_sigma.errors import InvalidInput

GOOD = noisy()


class Pictures:
    """An origin that counts what it reads, and may stop on the way."""

    def __init__(self, pictures: list[tuple[str, bytes, str]], name: str = "one") -> None:
        self.read: list[str] = []
        self.pictures = pictures
        self.stop_before: str | None = None
        self.origin = Origin({"kind": "test", "name": name}, len(pictures), self._candidates)

    def _candidates(self, known: Container[str]) -> Iterator[Candidate]:
        for key, image, text in self.pictures:
            if key == self.stop_before:
                raise KeyboardInterrupt
            yield Candidate(
                key,
                lambda key=key, image=image: self._image(key, image),
                lambda text=text: [Caption(text, "text")],
            )

    def _image(self, key: str, image: bytes) -> bytes:
        self.read.append(key)
        return image


def good(num: int) -> list[tuple[str, bytes, str]]:
    return [(f"key {index}", GOOD, "a house") for index in range(num)]


def keys(table: Table) -> list[str]:
    return table.read(["key"])["key"].to_pylist()


def test_a_table_is_built_once(tmp_path: Path) -> None:
    pictures = Pictures(good(5))
    path = tmp_path / "deep" / "a.lance"
    reports: list[tuple[int, int]] = []
    table = ingest(pictures.origin, path, 0.0, lambda *done: reports.append(done), fragment_rows=2)
    assert keys(table) == [f"key {index}" for index in range(5)]
    assert reports == [(number, 5) for number in range(1, 6)]
    assert skipped_file(path).read_text() == ""
    assert keys(ingest(pictures.origin, path, 0.0)) == keys(table)
    assert sorted(pictures.read) == keys(table)


def test_skipped_pictures_are_listed_with_the_reason(tmp_path: Path) -> None:
    listed = [*good(3), ("bad", b"x", "a"), ("silent", GOOD, " "), ("key 1", GOOD, "again")]
    path = tmp_path / "a.lance"
    table = ingest(Pictures(listed).origin, path, 0.2)
    assert keys(table) == ["key 0", "key 1", "key 2"]
    lines = [json.loads(line) for line in (tmp_path / "a.skipped.jsonl").read_text().splitlines()]
    assert [(line["key"], line["kind"]) for line in lines] == [
        ("bad", "corrupt"),
        ("silent", "no caption"),
        ("key 1", "duplicate key"),
    ]
    assert "not a JPEG" in lines[0]["reason"]


def test_a_killed_ingestion_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)  # so few pictures are in the threads when it is killed
    listed = [("bad", b"x", "a"), *good(20), ("key 1", GOOD, "again")]
    pictures = Pictures(listed)
    pictures.stop_before = "key 19"
    path = tmp_path / "a.lance"
    with pytest.raises(KeyboardInterrupt):
        ingest(pictures.origin, path, 0.5, fragment_rows=2)
    kept = keys(Table.open(path))
    assert kept
    assert kept == [f"key {index}" for index in range(len(kept))]
    assert len(kept) % 2 == 0
    pictures.stop_before = None
    pictures.read.clear()
    reports: list[tuple[int, int]] = []
    table = ingest(pictures.origin, path, 0.5, lambda *done: reports.append(done), fragment_rows=2)
    assert keys(table) == [f"key {index}" for index in range(20)]
    assert set(pictures.read) == {"bad", *keys(table)[len(kept) :]}
    assert reports == [(number, 22) for number in range(len(kept) + 1, 23)]
    assert len(skipped_file(path).read_text().splitlines()) == 2


def test_too_many_corrupt_pictures_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.lance"
    pictures = Pictures([*good(3), ("bad", b"x", "a"), ("silent", GOOD, "")])
    for _ in range(2):
        with pytest.raises(
            InvalidInput, match=r"1 of 5 pictures are corrupt, 20.00% .* 19.00% .*a.skipped.jsonl"
        ):
            ingest(pictures.origin, path, 0.19)
    assert ingest(pictures.origin, path, 0.2).num_rows == 3
    with pytest.raises(InvalidInput, match="1 of 5"):  # the limit is the caller's, at every call
        ingest(pictures.origin, path, 0.19)


@pytest.mark.parametrize(
    ("listed", "remedy"),
    [([], "name a source that has pictures"), ([("a", GOOD, "")], "see .*a.skipped.jsonl")],
)
def test_an_empty_dataset_is_an_error(
    tmp_path: Path, listed: list[tuple[str, bytes, str]], remedy: str
) -> None:
    for _ in range(2):
        with pytest.raises(InvalidInput, match=f"empty dataset: .*{remedy}"):
            ingest(Pictures(listed).origin, tmp_path / "a.lance", 1.0)


@pytest.mark.parametrize("finished", [True, False])
def test_a_changed_source_is_ingested_anew(tmp_path: Path, finished: bool) -> None:
    path = tmp_path / "a.lance"
    before = Pictures(good(4))
    if not finished:
        before.stop_before = "key 3"
    try:
        ingest(before.origin, path, 0.0, fragment_rows=2)
    except KeyboardInterrupt:
        assert not finished
    table = ingest(Pictures([("other", GOOD, "a")], "two").origin, path, 0.0)
    assert keys(table) == ["other"]
    assert keys(Table.open(path)) == ["other"]


def test_what_ingestion_did_not_make_is_left_alone(tmp_path: Path) -> None:
    Table.create(tmp_path / "a.lance", {"mine": "yes"})
    with pytest.raises(InvalidInput, match="was not made by ingestion"):
        ingest(Pictures(good(1)).origin, tmp_path / "a.lance", 0.0)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("precious")
    with pytest.raises(InvalidInput, match="is not a Lance table"):
        ingest(Pictures(good(1)).origin, tmp_path / "folder", 0.0)
    assert (tmp_path / "folder" / "file").read_text() == "precious"
    with pytest.raises(InvalidInput, match="does not exist"):
        ingest(Pictures(good(1)).origin, tmp_path / "folder" / "file", 0.0)
