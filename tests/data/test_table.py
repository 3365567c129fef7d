import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from encoded_pictures import record
from pixart_sigma.data.record import Record
from pixart_sigma.data.table import Share, Table
from pixart_sigma.errors import InvalidInput
from ranks import run_ranks


def build(path: Path, num: int = 7, fragment_rows: int = 3) -> Table:
    table = Table.create(path, {"made by": "a test"})
    table.append((record(index) for index in range(num)), fragment_rows)
    return table


def sizes(rows: Any) -> Iterator[Any]:
    yield pa.array([len(image) for image in rows["image"].to_pylist()], pa.int64())


def pixel_files(path: Path) -> dict[str, int]:
    """Data files and when they were written."""
    return {file.name: file.stat().st_mtime_ns for file in (path / "data").iterdir()}


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    build(tmp_path / "a.lance")
    table = Table.open(tmp_path / "a.lance")
    assert (table.num_rows, table.metadata) == (7, {"made by": "a test"})
    assert table.columns == ["key", "captions", "height", "width", "sha256", "image"]
    rows = [5, 0, 5, 3]
    expected = [record(row) for row in rows]
    taken = table.take(rows, ["key", "image", "captions", "height", "width"]).to_pylist()
    assert [row["key"] for row in taken] == [each.key for each in expected]
    assert [row["image"] for row in taken] == [each.image for each in expected]
    assert taken[0]["captions"] == [{"text": "a red house", "source": "source 0"}]
    assert (taken[0]["height"], taken[0]["width"]) == (20, 30)
    assert table.read(["key"])["key"].to_pylist() == [f"key {index}" for index in range(7)]


def test_a_killed_writer_loses_at_most_a_fragment(tmp_path: Path) -> None:
    def stopped() -> Iterator[Record]:
        yield from (record(index) for index in range(8))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Table.create(tmp_path / "a.lance", {}).append(stopped(), 3)
    table = Table.open(tmp_path / "a.lance")
    assert table.num_rows == 6
    table.append((record(index) for index in range(6, 8)), 3)
    assert Table.open(tmp_path / "a.lance").read(["key"])["key"].to_pylist() == [f"key {i}" for i in range(8)]


def test_a_fragment_of_large_pictures_has_fewer_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixart_sigma.data.table._FRAGMENT_BYTES", 2 * len(record(0).image) - 1000)
    table = build(tmp_path / "a.lance", 5, 100)
    table.add_column("size", pa.int64(), {}, ["image"], sizes, fragments=[])
    assert table.missing_fragments("size") == [0, 1, 2]


def test_a_column_is_computed_from_others_and_leaves_them_alone(tmp_path: Path) -> None:
    table = build(tmp_path / "a.lance")
    before = pixel_files(table.path)
    reports: list[tuple[int, int]] = []
    table.add_column(
        "size", pa.int64(), {"of": "image"}, ["image"], sizes, report=lambda *done: reports.append(done)
    )
    assert reports == [(1, 3), (2, 3), (3, 3)]
    table = Table.open(table.path)
    assert table.read(["size"])["size"].to_pylist() == [len(record(index).image) for index in range(7)]
    assert table.column_metadata("size") == {"of": "image"}
    assert table.missing_fragments("size") == []
    after = pixel_files(table.path)
    assert before.items() <= after.items()
    assert len(after) == len(before) + 3


def test_nested_columns_keep_their_nulls(tmp_path: Path) -> None:
    table = build(tmp_path / "a.lance")
    nested = pa.struct([("data", pa.large_binary()), ("height", pa.int32())])
    values = [None, {"data": b"ab", "height": 2}, {"data": b"", "height": 0}]
    table.add_column("a", nested, {}, ["key"], lambda rows: [pa.array(values[: len(rows)], nested)])
    listed = pa.list_(pa.large_binary())
    table.add_column("b", listed, {}, ["key"], lambda rows: [pa.array([[b"x", b"yz"]] * len(rows), listed)])
    taken = Table.open(table.path).take([4, 3, 2], ["a", "b"]).to_pylist()
    assert [row["a"] for row in taken] == [values[1], values[0], values[2]]
    assert taken[0]["b"] == [b"x", b"yz"]


def test_an_interrupted_column_goes_on(tmp_path: Path) -> None:
    table = build(tmp_path / "a.lance")
    computed: list[str] = []

    def compute(rows: Any) -> Iterator[Any]:
        first = rows["key"][0].as_py()
        if first == "key 3" and len(computed) < 2:
            raise KeyboardInterrupt
        computed.append(first)
        yield from sizes(rows)

    with pytest.raises(KeyboardInterrupt):
        table.add_column("size", pa.int64(), {}, ["key", "image"], compute)
    table = Table.open(table.path)
    assert table.missing_fragments("size") == [1, 2]
    assert table.take([2, 3], ["size"])["size"].to_pylist() == [len(record(2).image), None]
    table.add_column("size", pa.int64(), {}, ["key", "image"], compute, fragments=[2])
    assert table.missing_fragments("size") == [1]
    table.add_column("size", pa.int64(), {}, ["key", "image"], compute)
    assert computed == ["key 0", "key 6", "key 3"]
    assert table.read(["size"])["size"].to_pylist() == [len(record(index).image) for index in range(7)]


KILLED = """
import os, sys
from pathlib import Path
import pyarrow as pa
from pixart_sigma.data.table import Table

def compute(rows):
    if rows["key"][0].as_py() == "key 3":
        os._exit(9)
    yield pa.array([1] * len(rows))

Table.open(Path(sys.argv[1])).add_column("one", pa.int64(), {}, ["key"], compute)
"""


def test_a_killed_process_leaves_a_table_that_goes_on(tmp_path: Path) -> None:
    table = build(tmp_path / "a.lance")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(table.path)], env=os.environ, check=False)
    assert killed.returncode == 9
    table = Table.open(table.path)
    assert table.missing_fragments("one") == [1, 2]
    table.add_column("one", pa.int64(), {}, ["key"], lambda rows: [pa.array([2] * len(rows))])
    assert table.read(["one"])["one"].to_pylist() == [1, 1, 1, 2, 2, 2, 2]


def test_appended_rows_make_a_column_unfinished(tmp_path: Path) -> None:
    table = build(tmp_path / "a.lance", 3)
    table.add_column("size", pa.int64(), {}, ["image"], sizes)
    table.append([record(7)])
    assert table.missing_fragments("size") == [1]
    table.add_column("size", pa.int64(), {}, ["image"], sizes)
    assert table.take([3], ["size"])["size"].to_pylist() == [len(record(7).image)]


def test_a_dropped_column_can_be_made_anew(tmp_path: Path) -> None:
    table = build(tmp_path / "a.lance")
    table.add_column("size", pa.int64(), {"a": "1"}, ["image"], sizes)
    with pytest.raises(
        InvalidInput, match=r"column size of table .* is int64 of {'a': '1'}, not int64 of {'a': '2'}"
    ):
        table.add_column("size", pa.int64(), {"a": "2"}, ["image"], sizes)
    with pytest.raises(InvalidInput, match="drop it"):
        table.add_column("size", pa.int32(), {"a": "1"}, ["image"], sizes)
    table.drop_column("size")
    table.add_column("size", pa.int64(), {"a": "2"}, ["image"], sizes)
    assert table.column_metadata("size") == {"a": "2"}


def test_a_column_has_a_value_for_each_row(tmp_path: Path) -> None:
    table = build(tmp_path / "a.lance")
    with pytest.raises(ValueError, match="2 values for 3 rows"):
        table.add_column("size", pa.int64(), {}, ["key"], lambda rows: [pa.array([1]), pa.array([2])])
    assert table.missing_fragments("size") == [0, 1, 2]


def test_old_versions_are_cleaned_away(tmp_path: Path) -> None:
    table = build(tmp_path / "a.lance", 6, 1)
    assert len(list((table.path / "_versions").glob("*.manifest"))) == 1


def add_together(path: str) -> list[int]:
    import torch.distributed as dist

    def exchange(value: Any) -> list[Any]:
        values: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(values, value)
        return values

    computed: list[int] = []

    def compute(rows: Any) -> Iterator[Any]:
        computed.append(rows.num_rows)
        yield from sizes(rows)

    table = Table.open(Path(path))
    share = Share(dist.get_rank(), dist.get_world_size(), exchange)
    table.add_column("size", pa.int64(), {}, ["image"], compute, share=share)
    assert table.missing_fragments("size") == []
    assert table.take([4], ["size"])["size"].to_pylist() == [len(record(4).image)]
    return computed


def test_processes_share_the_work(tmp_path: Path) -> None:
    table = build(tmp_path / "a.lance", 7, 3)
    assert run_ranks(2, add_together, str(table.path)) == [[3, 1], [3]]
    table = Table.open(table.path)
    assert table.read(["size"])["size"].to_pylist() == [len(record(index).image) for index in range(7)]


def test_a_table_can_be_sent_to_another_process(tmp_path: Path) -> None:
    table = pickle.loads(pickle.dumps(build(tmp_path / "a.lance")))
    assert table.num_rows == 7


def test_errors_are_one_line(tmp_path: Path) -> None:
    table = build(tmp_path / "a.lance")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("x")
    calls = {
        "does not exist": lambda: Table.open(tmp_path / "none"),
        "is not a Lance table": lambda: Table.open(tmp_path / "folder"),
        "has no column x; it has key": lambda: table.read(["key", "x"]),
        "has no column y": lambda: table.take([0], ["y"]),
        "has no column z": lambda: table.column_metadata("z"),
        "has no column a": lambda: table.add_column("b", pa.int64(), {}, ["a"], sizes),
        "has no column c": lambda: table.drop_column("c"),
    }
    for message, call in calls.items():
        with pytest.raises(InvalidInput, match=message) as raised:
            call()
        assert "\n" not in str(raised.value)
    with pytest.raises(IndexError):
        table.take([7], ["key"])


def test_a_damaged_table_says_so(tmp_path: Path) -> None:
    path = build(tmp_path / "a.lance", 2).path
    for file in (path / "data").iterdir():
        file.write_bytes(b"gone")
    with pytest.raises(InvalidInput, match=r"is damaged .*; build it again") as raised:
        Table.open(path).take([0], ["image"])
    assert "\n" not in str(raised.value)
