"""A table of records on disk, in Lance's format. Rows are appended in fragments, columns are added later.

One commit a fragment, of rows or of a new column: a killed writer loses at most the fragment it was at, and goes on
from there. A new column is files of its own; what is there is never written again.

The only module that knows Lance. Knows nothing of pictures or encoders.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pixart_sigma.data.record import Record
from pixart_sigma.encoders.pretrained import first_line
from pixart_sigma.errors import InvalidInput

FRAGMENT_ROWS = 512
_FRAGMENT_BYTES = (
    2**28
)  # a fragment's pictures are held in memory, when written and when a column is made of them
_COMMITS_BETWEEN_CLEANINGS = 64  # each commit writes a list of all fragments

Report = Callable[[int, int], None]
# A fragment's input columns (a pyarrow.Table) → the new column's values, as arrays in the order of the rows.
Compute = Callable[[Any], Iterable[Any]]


def _alone(value: Any) -> list[Any]:
    return [value]


@dataclass(frozen=True)
class Share:
    """This process's part of work that `world` processes do together.

    `exchange(value)` gives every process the values of all, in order of rank, as
    `torch.distributed.all_gather_object` does. All see the same file system.
    """

    rank: int = 0
    world: int = 1
    exchange: Callable[[Any], list[Any]] = _alone


ALONE = Share()


class Table:
    """An open table. Row i is the i-th that was appended; rows are never removed, so the number stays."""

    def __init__(self, path: Path, dataset: Any) -> None:
        self.path = path
        self._dataset = dataset
        self._commits = 0

    @classmethod
    def create(cls, path: Path, metadata: dict[str, str]) -> Self:
        """A new table without rows, in a folder that has none. `metadata` is the table's own."""
        import lance

        empty = _record_schema().with_metadata(metadata).empty_table()
        return cls(path, lance.write_dataset(empty, str(path), mode="create"))

    @classmethod
    def open(cls, path: Path) -> Self:
        """The newest version of the table in the folder `path`. Raises InvalidInput if there is none."""
        return cls(path, _open(path))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).open, (self.path,)

    @property
    def num_rows(self) -> int:
        """Rows that were committed."""
        return int(self._dataset.count_rows())

    @property
    def columns(self) -> list[str]:
        """The names of all columns, unfinished ones too."""
        return list(self._dataset.schema.names)

    @property
    def metadata(self) -> dict[str, str]:
        """The table's own metadata."""
        return _text(self._dataset.schema.metadata)

    def set_metadata(self, metadata: dict[str, str]) -> None:
        """Add to the table's metadata, or replace what has these names."""
        self._dataset.update_schema_metadata(metadata)

    def column_metadata(self, column: str) -> dict[str, str]:
        """What `add_column` was told. Raises InvalidInput for an unknown column."""
        self._check([column])
        return _text(self._dataset.schema.field(column).metadata)

    def read(self, columns: Sequence[str]) -> Any:
        """Whole columns, as a pyarrow.Table. Raises InvalidInput for an unknown column or a damaged file."""
        self._check(columns)
        with _readable(self.path):
            return self._dataset.to_table(columns=list(columns))

    def caption_sources(self) -> Iterator[tuple[str, ...]]:
        """The sources of each row's captions, in order, without reading the texts into Python."""
        import pyarrow.compute as pc

        with _readable(self.path):
            for batch in self._dataset.to_batches(columns=["captions"]):
                captions = batch.column(0)
                names = pc.struct_field(captions.flatten(), "source").to_pylist()
                first = 0
                for count in pc.list_value_length(captions).to_pylist():
                    yield tuple(names[first : first + count])
                    first += count

    def take(self, rows: Sequence[int], columns: Sequence[str]) -> Any:
        """Rows in the order given, repeated ones too, as a pyarrow.Table. Raises InvalidInput as `read` does."""
        self._check(columns)
        if len(rows) and not 0 <= min(rows) <= max(rows) < self.num_rows:
            raise IndexError(f"rows {min(rows)} to {max(rows)} of a table of {self.num_rows}")
        with _readable(self.path):
            return self._dataset.take(list(rows), columns=list(columns))

    def append(self, records: Iterable[Record], fragment_rows: int = FRAGMENT_ROWS) -> None:
        """Append records, one commit a fragment of `fragment_rows` rows, or of fewer if their pictures are large."""
        import lance
        import pyarrow as pa

        for fragment in _fragments(records, fragment_rows):
            rows = pa.Table.from_pylist([dataclasses.asdict(record) for record in fragment], _record_schema())
            self._dataset = lance.write_dataset(rows, self._dataset, mode="append")
            self._committed()
        self._clean()

    def missing_fragments(self, column: str) -> list[int]:
        """The fragments that lack a column's values; none for a finished column. Raises InvalidInput if unknown."""
        self._check([column])
        fields = set(_field_ids(self._dataset.lance_schema.field(column)))
        return [
            fragment.fragment_id
            for fragment in self._dataset.get_fragments()
            if not any(fields & set(file.fields) for file in fragment.data_files())
        ]

    def drop_column(self, column: str) -> None:
        """Forget a column. Raises InvalidInput for an unknown one."""
        self._check([column])
        self._dataset.drop_columns([column])
        self._clean()

    def add_column(
        self,
        name: str,
        column_type: Any,
        metadata: dict[str, str],
        inputs: Sequence[str],
        compute: Compute,
        fragments: Sequence[int] | None = None,
        share: Share = ALONE,
        report: Report | None = None,
    ) -> None:
        """Add a column of the pyarrow type `column_type`, or complete it, computed from the columns `inputs`.

        Fragments that have it are skipped; `fragments` limits the work to some. Of several processes each computes
        a fragment a round, and rank 0 commits a round at once. `report(done, total)` counts the table's fragments.
        Raises InvalidInput if there is a column of that name with another type or other metadata.
        """
        self._check(inputs)
        if share.rank == 0:
            self._declare(name, column_type, metadata)
        self._meet(share)
        missing = self.missing_fragments(name)
        total = len(self._dataset.get_fragments())
        done = total - len(missing)
        wanted = [fragment for fragment in missing if fragments is None or fragment in fragments]
        for start in range(0, len(wanted), share.world):
            round_ = wanted[start : start + share.world]
            mine = round_[share.rank : share.rank + 1]
            written = [(fragment, self._write(fragment, name, inputs, compute)) for fragment in mine]
            files = dict(pair for pairs in share.exchange(written) for pair in pairs)
            if share.rank == 0:
                self._commit(files)
            self._meet(share)
            done += len(round_)
            if report:
                report(done, total)
        if share.rank == 0:
            self._clean()

    def _declare(self, name: str, column_type: Any, metadata: dict[str, str]) -> None:
        """Add a column without values, or check the one that is there."""
        import pyarrow as pa

        if name not in self.columns:
            self._dataset.add_columns(pa.field(name, column_type, metadata=metadata))
        field = self._dataset.schema.field(name)
        if (field.type, _text(field.metadata)) != (column_type, metadata):
            raise InvalidInput(
                f"column {name} of table {self.path} is {field.type} of {_text(field.metadata)}, not {column_type} of "
                f"{metadata}; drop it, or use another table"
            )

    def _write(self, fragment: int, name: str, inputs: Sequence[str], compute: Compute) -> Any:
        """Write a fragment's values to a file that no version of the table knows yet → its Lance DataFile."""
        import lance
        import pyarrow as pa

        with _readable(self.path):
            rows = self._dataset.get_fragment(fragment).to_table(columns=list(inputs))
        field = self._dataset.schema.field(name)
        # All of it before Lance comes in, which would pull it from a thread of its own and swallow its exceptions.
        values = pa.chunked_array(list(compute(rows)), type=field.type)
        if len(values) != len(rows):
            raise ValueError(f"column {name}: {len(values)} values for {len(rows)} rows")
        written = lance.fragment.LanceFragment.create(
            str(self.path),
            pa.Table.from_arrays([values], schema=pa.schema([field])),
            mode="create",  # a file of other fields than the table's; it is not the table that is created
            data_storage_version=self._dataset.data_storage_version,
        )
        (file,) = written.files
        # The file numbers its fields from 0; in the table they have the numbers of the column declared there.
        ids = _field_ids(self._dataset.lance_schema.field(name))
        return lance.fragment.DataFile(
            file.path,
            [ids[index] for index in file.fields],
            file.column_indices,
            file.file_major_version,
            file.file_minor_version,
            file.file_size_bytes,
        )

    def _commit(self, files: dict[int, Any]) -> None:
        """Make files written by `_write` part of the table, in one commit."""
        import lance

        fragments = []
        for fragment in self._dataset.get_fragments():
            known = fragment.metadata
            if known.id in files:
                known = dataclasses.replace(known, files=[*known.files, files[known.id]])
            fragments.append(known)
        merge = lance.LanceOperation.Merge(fragments, self._dataset.lance_schema)
        self._dataset = lance.LanceDataset.commit(
            self._dataset, merge, read_version=self._dataset.version, max_retries=0
        )
        self._committed()

    def _meet(self, share: Share) -> None:
        """Wait until rank 0 is here; then all see what it committed."""
        share.exchange(None)
        if share.rank != 0:
            self._dataset = _open(self.path)

    def _committed(self) -> None:
        self._commits += 1
        if self._commits % _COMMITS_BETWEEN_CLEANINGS == 0:
            self._clean()

    def _clean(self) -> None:
        """Delete old versions' lists of fragments; files that none names stay for a week, as another may write them."""
        self._dataset.cleanup_old_versions(older_than=datetime.timedelta(0))

    def _check(self, columns: Sequence[str]) -> None:
        unknown = [column for column in columns if column.partition(".")[0] not in self.columns]
        if unknown:
            raise InvalidInput(
                f"table {self.path} has no column {unknown[0]}; it has {', '.join(self.columns)}"
            )


def _open(path: Path) -> Any:
    import lance

    if not path.is_dir():
        raise InvalidInput(f"table {path} does not exist; name the folder of a table, or build it first")
    try:
        return lance.dataset(str(path))
    except (OSError, ValueError, RuntimeError) as error:
        raise InvalidInput(
            f"{path} is not a Lance table ({first_line(error)}); name the folder of a table, or build it first"
        ) from error


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        raise InvalidInput(f"table {path} is damaged ({first_line(error)}); build it again") from error


def _record_schema() -> Any:
    import pyarrow as pa

    caption = pa.struct([("text", pa.string()), ("source", pa.string())])
    return pa.schema(
        [
            ("key", pa.string()),
            ("captions", pa.list_(caption)),
            ("height", pa.int32()),
            ("width", pa.int32()),
            ("sha256", pa.string()),
            ("image", pa.large_binary()),
        ]
    )


def _fragments(records: Iterable[Record], fragment_rows: int) -> Iterator[list[Record]]:
    pending: list[Record] = []
    size = 0
    for record in records:
        pending.append(record)
        size += len(record.image)
        if len(pending) == fragment_rows or size >= _FRAGMENT_BYTES:
            yield pending
            pending, size = [], 0
    if pending:
        yield pending


def _field_ids(field: Any) -> list[int]:
    """The numbers of a field of Lance's schema and of all fields in it, in Lance's order."""
    return [field.id(), *(number for child in field.children() for number in _field_ids(child))]


def _text(metadata: dict[bytes, bytes] | None) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in (metadata or {}).items()}
