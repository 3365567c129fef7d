"""A study's results as files: all of it as JSON, a page with the table beside the paper's own, a plot.

output/STUDY/CELL.json   the values of one cell, and the recipes that made it
output/STUDY.json, STUDY.md, STUDY.png, STUDY.jpg
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pixart_sigma.reproduction.metric import METRICS
from pixart_sigma.reproduction.paper import PaperTable, Value
from pixart_sigma.reproduction.plot import plot_study
from pixart_sigma.reproduction.results import CellResult, Cost, JudgedClaim
from pixart_sigma.reproduction.strip import Strip, draw_strip, strip_markdown
from pixart_sigma.reproduction.study import Stage, Study
from pixart_sigma.reproduction.verdict import spread
from pixart_sigma.weights.atomic import written_whole

_NOT_KNOWN = "–"


def write_study(
    study: Study,
    results: Mapping[str, CellResult],
    judged: Sequence[JudgedClaim],
    strip: Strip,
    output: Path,
) -> Path:
    """Writes all of the files → the page's path."""
    (output / study.name).mkdir(parents=True, exist_ok=True)
    cells = [asdict(results[cell.label]) | {"stage": described(cell.stage)} for cell in study.cells]
    for cell in cells:
        write_text(output / study.name / f"{_slug(cell['label'])}.json", to_json(cell))
    content = {
        "study": study.name,
        "question": study.question,
        "cells": cells,
        "claims": [
            asdict(each.claim) | asdict(each.verdict) | {"sentence": each.sentence} for each in judged
        ],
        "paper": asdict(study.paper),
    }
    write_text(output / f"{study.name}.json", to_json(content))
    with written_whole(output / f"{study.name}.png") as temporary:
        plot_study(study, results, temporary)
    with written_whole(output / f"{study.name}.jpg") as temporary:
        draw_strip(strip, temporary)
    page = output / f"{study.name}.md"
    write_text(page, study_page(study, results, judged, strip))
    return page


def described(stage: Stage) -> dict[str, Any]:
    """Recipe, overrides and lengths, and the same of all that it starts from, by the recipe's keys."""
    return {
        "name": stage.name,
        "recipe": stage.recipe,
        "overrides": stage.overrides,
        "lengths": stage.lengths,
        "inputs": {
            key: "the pocket model" if given is None else {"steps": given.steps, **described(given.stage)}
            for key, given in stage.inputs
        },
    }


def study_page(
    study: Study, results: Mapping[str, CellResult], judged: Sequence[JudgedClaim], strip: Strip
) -> str:
    """Markdown: the question, the sentences, the table, the paper's, pictures, what it cost."""
    num_seeds = len(next(iter(results[study.cells[0].label].at(None).values())))
    parts = [
        f"# {study.name}",
        study.question,
        f"![{study.name}]({study.name}.png)",
        "## Orderings",
        "\n".join(f"- {each.sentence}" for each in judged),
        f"## Measured (mean ± standard deviation of {num_seeds} seeds)",
        _measured(study, results),
        *([study.note] if study.note else []),
        f"## {study.paper.source} of the paper",
        paper_markdown(study.paper),
        "## Pictures of the first seed, after the last steps (not chosen: every so many of the prompts)",
        strip_markdown(strip, f"{study.name}.jpg"),
        "## Cost (all seeds together)",
        _costs(results),
    ]
    return "\n\n".join(parts) + "\n"


def paper_markdown(table: PaperTable) -> str:
    """The paper's table and what it says."""
    parts = [markdown_table(table.columns, table.rows)] if table.rows else []
    return "\n\n".join([*parts, *([table.says] if table.says else [])])


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[Value]]) -> str:
    """A table whose first column is text; what is not known is a dash."""
    rule = ["---", *["--:"] * (len(columns) - 1)]
    written = [[_NOT_KNOWN if value is None else str(value) for value in row] for row in rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [list(columns), rule, *written])


def cost_cells(cost: Cost) -> tuple[str, str]:
    """Hours and samples."""
    return f"{cost.seconds / 3600:.2f}", f"{cost.samples:,}"


def to_json(content: Any) -> str:
    """Indented, with a newline at the end."""
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def write_text(path: Path, text: str) -> None:
    """The file appears whole or not at all."""
    with written_whole(path) as temporary:
        temporary.write_text(text, "utf-8")


def _measured(study: Study, results: Mapping[str, CellResult]) -> str:
    metrics = [METRICS[name] for name in study.metrics]
    rows: list[list[Value]] = []
    for cell in results.values():
        for steps, values in sorted(cell.values.items()):
            figures = [spread(values[metric.name]) for metric in metrics]
            texts = [
                f"{each.mean:.{metric.digits}f} ± {each.deviation:.{metric.digits}f}"
                for each, metric in zip(figures, metrics, strict=True)
            ]
            rows.append([cell.label, f"{steps:,}", *texts])
    return markdown_table(["cell", "steps", *(metric.heading for metric in metrics)], rows)


def _costs(results: Mapping[str, CellResult]) -> str:
    rows = [(cell.label, *cost_cells(cell.own), *cost_cells(cell.whole)) for cell in results.values()]
    columns = ("cell", "hours", "samples", "hours with what it starts from", "samples with these")
    return markdown_table(columns, rows)


def _slug(label: str) -> str:
    return re.sub(r"[^\w]+", "-", label.lower()).strip("-")
