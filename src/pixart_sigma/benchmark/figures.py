"""What a suite found, with everything that it depends on: as JSON, and as a section of a page.

Legend of the JSON: `suite`; `device`, cpu or cuda; `machine`; `date`; `versions` of libraries; `options` of the
command; `rows`, those of the table, or for the suites in `_SUMMARIES` everything that their table is made of; `note`, a
sentence for below the table. A suite that could not run has `failed`, the reason, in place of the rows, and one that
was cut short has `incomplete` beside them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import torch

from pixart_sigma.benchmark.growth import compression_table, scaling_table
from pixart_sigma.benchmark.inference import summary
from pixart_sigma.benchmark.inference.scenarios import Suite as InferenceSuite
from pixart_sigma.benchmark.machine import describe_machine, library_versions
from pixart_sigma.benchmark.shortcuts import shortcuts_table
from pixart_sigma.benchmark.start import start_table
from pixart_sigma.benchmark.table import Row, render_table
from pixart_sigma.benchmark.waterfall import waterfall_table
from pixart_sigma.errors import InvalidInput
from pixart_sigma.weights.atomic import written_whole

Figures = dict[str, Any]
_SUMMARIES: dict[str, Callable[[Sequence[Mapping[str, Any]]], list[Row]]] = {
    **dict.fromkeys(get_args(InferenceSuite), summary.summarise),
    **dict.fromkeys(("pipeline-waterfall", "transformer-waterfall"), waterfall_table.summarise),
    "kv-compression": compression_table.summarise,
    "scaling": scaling_table.summarise,
    "shortcuts": shortcuts_table.summarise,
    "start": start_table.summarise,
}
_ALWAYS = ("suite", "device", "machine", "date", "versions", "options")


def collect(suite: str, device: torch.device, options: Mapping[str, Any], rows: Sequence[Row]) -> Figures:
    """Rows of a suite that ran here, today."""
    return {
        "suite": suite,
        "device": device.type,
        "machine": describe_machine(device),
        "date": datetime.now(UTC).date().isoformat(),
        "versions": library_versions(),
        "options": dict(options),
        "rows": list(rows),
    }


def write_figures(path: Path, figures: Figures) -> None:
    """As JSON; the file appears whole or not at all."""
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(figures, indent=2) + "\n", "utf-8")


def read_figures(path: Path) -> list[Figures]:
    """A file of one suite, or a list of several. Raises InvalidInput for anything else."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path} cannot be read as JSON ({error}); write it again with --json") from error
    several = content if isinstance(content, list) else [content]
    for figures in several:
        lacking = (
            [name for name in _ALWAYS if name not in figures] if isinstance(figures, dict) else list(_ALWAYS)
        )
        if lacking or not ("failed" in figures or figures.get("rows")):
            missing = ", ".join(lacking) or "rows"
            raise InvalidInput(f"{path} holds no figures (it lacks {missing}); write it again with --json")
    return several


def render(figures: Figures) -> str:
    """What ran where and when, and the table; of a suite that could not run, why."""
    options = ", ".join(f"{name} {value}" for name, value in figures["options"].items())
    versions = ", ".join(f"{name} {number}" for name, number in figures["versions"].items())
    facts = "; ".join(fact for fact in (figures["machine"], figures["date"], options, versions) if fact)
    if "failed" in figures:
        return f"{facts}.\n\nNot measured, the suite failed: {figures['failed']}"
    rows = figures["rows"]
    if figures["suite"] in _SUMMARIES:
        rows = _SUMMARIES[figures["suite"]](rows)
    note = f"\n\n{figures['note']}" if "note" in figures else ""
    ended = f"\n\nNot all of it: {figures['incomplete']}." if "incomplete" in figures else ""
    return f"{facts}.\n\n{_tables(rows)}{note}{ended}"


def _tables(rows: Sequence[Row]) -> str:
    """One table, or two where rows say whether they are `exact`: those that are not stand by themselves, each with the
    columns in which it has something to say.
    """
    if "exact" not in rows[0]:
        return render_table(rows)
    exact, others = (_without_empty([row for row in rows if row["exact"] is kind]) for kind in (True, False))
    tables = [render_table(exact)] * bool(exact)
    if others:
        tables.append(f"Not exact:\n\n{render_table(others)}")
    return "\n\n".join(tables)


def _without_empty(rows: Sequence[Row]) -> list[Row]:
    heads = [
        head
        for head in (rows[0] if rows else ())
        if head != "exact" and any(row[head] is not None for row in rows)
    ]
    return [{head: row[head] for head in heads} for row in rows]
