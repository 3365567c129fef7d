"""The figures of an evaluation as rows, as a Markdown table, and on one page with the pictures.

Reads what metrics.json holds, and the pictures it names. Knows nothing of models or judges.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from PIL import Image

from pixart_sigma.weights.atomic import written_whole

COLUMNS = {
    "model": "the model's pictures",
    "ceiling": "the prompts' scenes as the model's autoencoder gives them back",
    "truth": "the prompts' scenes as they are drawn",
    "floor": "the model's pictures beside shuffled prompts",
}
"""Sets of pictures, and what they are."""
TABLE_FILE = "table.md"
PAGE_FILE = "report.html"
_SHARES = (
    "prompt adherence",
    "attributes read right",
    "attributes of things that are seen",
    "lettering",
)
_WHOLE = ("", "all")
_THUMBNAIL_SIDE = 256
_QUALITY = 80


@dataclass(frozen=True)
class Row:
    """A label, on how many pictures or statements of the model, and the words of each column that has figures.

    A part is of the metric above it; a metric that has only parts has a row without words.
    """

    label: str
    num: str
    cells: tuple[str, ...]
    is_part: bool


def columns(metrics: Mapping[str, Any]) -> list[str]:
    """The sets of pictures that have figures, in order."""
    found = {figure["pictures"] for figure in metrics["figures"]}
    return [name for name in COLUMNS if name in found]


def rows(metrics: Mapping[str, Any]) -> list[Row]:
    """What metrics.json holds → a row for each figure; intervals stand beside the model's only."""
    heads = columns(metrics)
    found: dict[str, dict[str, dict[str, Mapping[str, Any]]]] = {}
    for figure in metrics["figures"]:
        found.setdefault(figure["metric"], {}).setdefault(figure["part"], {})[figure["pictures"]] = figure
    told = []
    for metric, parts in found.items():
        if not any(part in _WHOLE for part in parts):
            told.append(Row(metric, "", ("",) * len(heads), False))
        for part, of_column in parts.items():
            is_part = part not in _WHOLE
            label = f"· {part.replace('_', ' ')}" if is_part else metric
            cells = tuple(_cell(of_column.get(head)) for head in heads)
            num = of_column["model"]["num"] if "model" in of_column else 0
            told.append(Row(label, str(num), cells, is_part))
    return told


def markdown(metrics: Mapping[str, Any]) -> str:
    """The rows as a table, and below it what the columns are."""
    heads = columns(metrics)
    lines = [["figure", "on", *heads], ["---", *["---:"] * (len(heads) + 1)]]
    lines += [[row.label, row.num, *row.cells] for row in rows(metrics)]
    notes = [f"{name}: {COLUMNS[name]}" for name in heads]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{headline(metrics)}\n\n{table}\n\nIn brackets: 95 % bootstrap intervals. {'; '.join(notes)}.\n"


def headline(metrics: Mapping[str, Any]) -> str:
    """What was evaluated, and how its pictures were made."""
    making = metrics["making"]
    return (
        f"Model {metrics['model']}, {metrics['prompts']['num']} prompts, {making['size']} pixels, "
        f"{making['steps']} steps of {making['sampler']}, guidance {making['guidance_scale']:g}; "
        f"features {metrics['features']}"
    )


def write_table(metrics: Mapping[str, Any], output: Path) -> None:
    """Write `output/table.md`."""
    with written_whole(output / TABLE_FILE) as temporary:
        temporary.write_text(markdown(metrics), "utf-8")


def write_page(metrics: Mapping[str, Any], output: Path) -> None:
    """Write `output/report.html`, which needs no other file: the pictures are in it, at most 256 pixels a side."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = (resources.files(__package__) / "report.html.jinja").read_text("utf-8")
    groups: dict[str, list[dict[str, Any]]] = {}
    for picture in metrics["pictures"]:
        shown = picture | {
            "data": _thumbnail(output / picture["file"]),
            "remarks": _remarks(picture),
            "right": not picture["wrong"] if "wrong" in picture else None,
        }
        groups.setdefault(picture["group"], []).append(shown)
    page = environment.from_string(template).render(
        model=metrics["model"],
        version=metrics["version"],
        headline=headline(metrics),
        columns={name: COLUMNS[name] for name in columns(metrics)},
        rows=rows(metrics),
        tiles=[row for row in rows(metrics) if row.num and not row.is_part],
        groups=groups,
    )
    with written_whole(output / PAGE_FILE) as temporary:
        temporary.write_text(page, "utf-8")


def _cell(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return "–"
    is_share = figure["metric"] in _SHARES
    words = _number(figure["value"], is_share)
    if figure["pictures"] == "model" and figure["low"] is not None:
        words += f" [{_number(figure['low'], is_share)}, {_number(figure['high'], is_share)}]"
    return words + " %" * is_share


def _number(value: float, is_share: bool) -> str:
    if is_share:
        return f"{100 * value:.1f}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"


def _remarks(picture: Mapping[str, Any]) -> Sequence[str]:
    """What was read wrong on a picture, in words."""
    remarks = []
    for wrong in picture.get("wrong", ()):
        attribute = wrong["attribute"].replace("_", " ")
        if attribute == "kind":
            remarks.append(f"no {wrong['stated']}")
        elif wrong["kind"] is None or wrong["read"] is not None:
            whose = "" if wrong["kind"] is None else f"{wrong['kind']}'s "
            remarks.append(f"{whose}{attribute}: {wrong['read'] or 'none'}, not {wrong['stated']}")
    if lettering := picture.get("lettering"):
        remarks.append(f"reads “{lettering['read']}”")
    return remarks


def _thumbnail(path: Path) -> str:
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    picture.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
