"""An origin → a table of its records, once; what was skipped is listed beside the table, with the reasons.

    train.lance/           the table
    train.skipped.jsonl    key, kind and reason, a line each

A killed ingestion goes on where it was. Knows nothing of what origins there are.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pixart_sigma.data.record import Record
from pixart_sigma.data.sources.origin import Origin, Skipped, records
from pixart_sigma.data.table import FRAGMENT_ROWS, Report, Table
from pixart_sigma.errors import InvalidInput

# Names in the table's metadata; `_FINISHED` is written last.
_FINGERPRINT = "pixart_sigma.source"
_FINISHED = "pixart_sigma.ingested"


def ingest(
    origin: Origin,
    table_path: Path,
    max_corrupt: float,
    report: Report | None = None,
    fragment_rows: int = FRAGMENT_ROWS,
) -> Table:
    """Open the table at `table_path`, built or completed first where need be.

    A table that was ingested from another origin, or from this one before it changed, is built anew, without its
    cached features. `report(done, total)` counts the origin's candidates. Raises InvalidInput if `table_path` is
    something else, if more than the share `max_corrupt` of the pictures are corrupt, or if no record is left.
    """
    table = _started(origin, table_path)
    if _FINISHED not in table.metadata:
        counts = {"pictures": origin.num_candidates, "corrupt": 0}
        known = frozenset(table.read(["key"])["key"].to_pylist())
        with skipped_file(table_path).open("w", encoding="utf-8") as lines:
            table.append(_kept(origin, known, counts, lines, report), fragment_rows)
        _check(counts, table, max_corrupt)
        table.set_metadata({_FINISHED: json.dumps(counts)})
    else:
        _check(json.loads(table.metadata[_FINISHED]), table, max_corrupt)
    return table


def skipped_file(table_path: Path) -> Path:
    """Where `ingest` lists what it skipped."""
    return table_path.with_suffix(".skipped.jsonl")


def _started(origin: Origin, path: Path) -> Table:
    """The table of this origin, perhaps unfinished, perhaps new."""
    fingerprint = json.dumps(origin.fingerprint, sort_keys=True, ensure_ascii=False)
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        table = Table.open(path)
        if _FINGERPRINT not in table.metadata:
            raise InvalidInput(f"table {path} was not made by ingestion and is not written to; name another")
        if table.metadata[_FINGERPRINT] == fingerprint:
            return table
        shutil.rmtree(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return Table.create(path, {_FINGERPRINT: fingerprint})


def _kept(
    origin: Origin, known: frozenset[str], counts: dict[str, int], lines: Any, report: Report | None
) -> Iterator[Record]:
    done = len(known)
    for outcome in records(origin, known):
        done += 1
        if isinstance(outcome, Skipped):
            counts["corrupt"] += outcome.kind == "corrupt"
            lines.write(json.dumps(vars(outcome), ensure_ascii=False) + "\n")
            lines.flush()
        else:
            yield outcome
        if report:
            report(done, origin.num_candidates)


def _check(counts: dict[str, int], table: Table, max_corrupt: float) -> None:
    num, corrupt = counts["pictures"], counts["corrupt"]
    listed = skipped_file(table.path)
    if num and corrupt / num > max_corrupt:
        raise InvalidInput(
            f"{corrupt} of {num} pictures are corrupt, {corrupt / num:.2%} and more than the {max_corrupt:.2%} "
            f"allowed; they are listed in {listed}: mend them or take them away, or allow more"
        )
    if table.num_rows == 0:
        raise InvalidInput(
            f"empty dataset: no record is left of {num} pictures; "
            + (f"see {listed} for the reasons" if num else "name a source that has pictures")
        )
