"""report.html: what a run's folder says, on one page that needs nothing beside it but links to the other pictures.

Reads metrics.jsonl and, where they are, recipe.toml, samples/, machine.json, and surgery.txt or surgery.jsonl. Knows
nothing of models.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from statistics import median
from textwrap import shorten
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

import pixart_sigma
from pixart_sigma.errors import InvalidInput
from pixart_sigma.training.surgery import Change, summarise
from pixart_sigma.training.watching.curves import Curves, draw
from pixart_sigma.training.watching.gallery import gather_pictures
from pixart_sigma.training.watching.metrics import read_metrics
from pixart_sigma.training.watching.privacy import without_paths
from pixart_sigma.training.watching.series import Series, collect_series
from pixart_sigma.weights.atomic import written_whole

_RATES = ("learning_rate", "rate")
_SPEEDS = ("samples_per_second", "images_per_second")
_TITLES = {
    "loss": "Loss",
    "learning_rate": "Learning rate",
    "rate": "Learning rate, share of its peak",
    "gradient_norm": "Gradient norm",
    "samples_per_second": "Throughput, samples/s",
    "images_per_second": "Throughput, images/s",
}
_MOST_EVENTS = 5
"""Of a kind, those that are told one by one: the last ones."""
_LONGEST_DETAIL = 300
_WIDE, _NARROW = (760.0, 290.0), (400.0, 230.0)
"""Points; a chart that fills the page, and one that stands beside another or fills a telephone."""


@dataclass(frozen=True)
class _Chart:
    title: str
    has_training: bool
    has_validation: bool
    narrow: Markup
    wide: Markup | None


@dataclass(frozen=True)
class _Event:
    kind: str
    num: int
    first: int
    last: int
    details: list[tuple[int, str]]


def write_report(output: Path) -> Path:
    """Write `output/report.html` from what a run, finished or not, has left in `output`, and return its path.

    Raises InvalidInput if `output` is no run's folder.
    """
    try:
        records = read_metrics(output / "metrics.jsonl")
    except OSError as error:
        raise InvalidInput(f"{output} has no metrics.jsonl; give the output folder of a training") from error
    recipe_text = _read(output / "recipe.toml")
    recipe = _parsed_recipe(recipe_text)
    series = collect_series(records)
    events = [record for record in records if "event" in record]
    embedded, linked = gather_pictures(output)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"figure": _figure, "count": lambda value: f"{value:,}"}
    template = (resources.files(__package__) / "report.html.jinja").read_text("utf-8")
    page = environment.from_string(template).render(
        name=output.resolve().name,
        kind=recipe.get("kind", "training"),
        version=pixart_sigma.__version__,
        summary=_summary(records, series, recipe),
        charts=_charts(series, events),
        has_resumes=any(event["event"] == "resumed" for event in events),
        embedded=embedded,
        linked=linked,
        prompts=_prompts(recipe),
        figures={name: found for name, found in series.items() if name not in (*_RATES, *_SPEEDS)},
        events=_events(events),
        surgery=without_paths(_surgery(output)),
        recipe=without_paths(recipe_text),
        machine=_machine(output / "machine.json"),
    )
    path = output / "report.html"
    with written_whole(path) as temporary:
        temporary.write_text(page, "utf-8")
    return path


def _read(path: Path) -> str:
    return path.read_text("utf-8", errors="replace").strip() if path.is_file() else ""


def _surgery(output: Path) -> str:
    """The summary in surgery.txt, or one of the log in surgery.jsonl; "" if there was no surgery."""
    if text := _read(output / "surgery.txt"):
        return text
    try:
        changes = [Change(**json.loads(line)) for line in _read(output / "surgery.jsonl").splitlines()]
    except (json.JSONDecodeError, TypeError):  # not a log of ours
        return ""
    return "\n".join(summarise(changes)) if changes else ""


def _parsed_recipe(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:  # it is shown as it is
        return {}


def _machine(path: Path) -> dict[str, str]:
    try:
        content = json.loads(_read(path) or "{}")
    except json.JSONDecodeError:
        return {}
    return {str(label): without_paths(str(words)) for label, words in content.items()}


def _summary(
    records: Sequence[Mapping[str, Any]], series: Mapping[str, Series], recipe: Mapping[str, Any]
) -> list[tuple[str, str, str]]:
    """(label, figure, remark) of the run as a whole."""
    run = recipe.get("run", {})
    done = max((record["step"] for record in records), default=0)
    planned = run.get("steps", done)
    rows = [("Steps", f"{done:,}", "finished" if done >= planned else f"of {planned:,}")]
    if records:
        rows.append(("Time", _duration(max(record["seconds"] for record in records)), ""))
    if batch_size := run.get("batch_size"):
        rows.append(("Samples", _short(done * batch_size), f"{batch_size:,} a step"))
    speed = next((series[name] for name in _SPEEDS if name in series), None)
    if speed is not None:
        rows.append(("Throughput", _figure(median(speed.values)), "samples/s, median"))
    for name, label in (("loss", "Training loss"), ("validation_loss", "Validation loss")):
        if name in series:
            found = series[name]
            rows.append((label, _figure(found.values[-1]), f"from {_figure(found.values[0])}"))
    return rows


def _charts(series: Mapping[str, Series], events: Sequence[Mapping[str, Any]]) -> list[_Chart]:
    """The loss first and wide, then what every run has, then the other terms; a single point makes no chart."""
    marks = [event["step"] for event in events if event["event"] == "resumed"]
    plain = [name.removeprefix("validation_") for name in series if not name.startswith("export_")]
    order = [name for name in _TITLES if name in plain]
    order += [name for name in dict.fromkeys(plain) if name not in order]
    charts = []
    for name in order:
        training, validation = series.get(name), series.get(f"validation_{name}")
        if max(len(found.steps) for found in (training, validation) if found is not None) < 2:
            continue
        planned = name in _RATES
        curves = Curves(training, validation, not planned, not (planned or name in _SPEEDS), marks)
        charts.append(
            _Chart(
                _TITLES.get(name, name.replace("_", " ")),
                training is not None,
                validation is not None,
                Markup(draw(curves, *_NARROW)),
                Markup(draw(curves, *_WIDE)) if name == "loss" else None,
            )
        )
    return charts


def _events(records: Sequence[Mapping[str, Any]]) -> list[_Event]:
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        kinds.setdefault(str(record["event"]), []).append(record)
    return [
        _Event(
            kind,
            len(found),
            found[0]["step"],
            found[-1]["step"],
            [
                (
                    record["step"],
                    shorten(without_paths(str(record["detail"])), _LONGEST_DETAIL, placeholder=" …"),
                )
                for record in found[-_MOST_EVENTS:]
                if record.get("detail")
            ],
        )
        for kind, found in kinds.items()
    ]


def _prompts(recipe: Mapping[str, Any]) -> list[str]:
    return [str(prompt) for prompt in recipe.get("samples", {}).get("prompts", [])]


def _figure(value: float) -> str:
    """Four digits that count."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _short(value: float) -> str:
    for size, suffix in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if value >= size:
            return f"{value / (1e3 if suffix == ' k' else size):.4g}{suffix}"
    return f"{value:,}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes >= 10 else f"{minutes} min {rest} s"
