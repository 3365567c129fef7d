"""The table of suite kv-compression: a row for each way, its saving beside the predicted one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from pixart_sigma.benchmark.growth.scenarios import EXACT
from pixart_sigma.benchmark.table import Row
from pixart_sigma.evaluation.metrics.bootstrap import bootstrap_interval

_HEADS = (
    "s",
    "fastest",
    "saved s",
    "predicted s",
    "of attention",
    "of products",
    "of the predicted saving",
    "matrix GFLOP/s",
    "attention GFLOP/s, N x N",
    "attention GFLOP/s, N x M",
    "gate",
)


def summarise(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """What `measure` gave → rows with the same heads; a scenario that failed has one row that says why."""
    summary: list[Row] = []
    for row in rows:
        if row["failed"] is not None:
            summary.append(_line(row, "-", gate=f"failed: {row['failed']}"))
            continue
        whole = next(iter(row["ways"].values()))["seconds"]
        summary += [
            _line(row, way, **_figures(row["rates"], whole, figures)) for way, figures in row["ways"].items()
        ]
    return summary


def _figures(rates: Mapping[str, float], whole: Sequence[float], way: Mapping[str, Any]) -> dict[str, Any]:
    figures = {
        "s": median(way["seconds"]),
        "fastest": min(way["seconds"]),
        "matrix GFLOP/s": rates["matrix"] / 1e9,
        "attention GFLOP/s, N x N": rates["whole"] / 1e9,
        "attention GFLOP/s, N x M": rates["compressed"] / 1e9,
        "gate": f"{max(way['gate']['errors'].values()):.1e}",
    }
    if "predicted" not in way:
        return figures
    attention, products = (
        [saving[part] for saving in way["predicted"]] for part in ("attention", "products")
    )
    predicted = [sum(parts) for parts in zip(attention, products, strict=True)]
    return figures | {
        "saved s": median(whole) - median(way["seconds"]),
        "predicted s": median(predicted),
        "of attention": median(attention),
        "of products": median(products),
        "of the predicted saving": _share(whole, way["seconds"], predicted),
    }


def _share(whole: Sequence[float], way: Sequence[float], predicted: Sequence[float]) -> str | None:
    """With the interval of resampled rounds, each with its own prediction; None where nothing is to be saved."""
    if min(predicted) <= 0:
        return None

    def share(rounds: Sequence[tuple[float, float, float]]) -> float:
        one, other, expected = (median(column) for column in zip(*rounds, strict=True))
        return (one - other) / expected

    found = bootstrap_interval(list(zip(whole, way, predicted, strict=True)), share)
    return f"{found.estimate:.0%} ({found.low:.0%} to {found.high:.0%})"


def _line(row: Mapping[str, Any], way: str, **figures: Any) -> Row:
    compressed, num_layers = row["blocks"]
    if "s" in figures and "predicted s" not in figures:
        compressed = 0
    return {
        "scenario": row["scenario"],
        "compressed blocks": f"{compressed} of {num_layers}",
        "tokens": row["tokens"],
        "dtype": row["dtype"],
        "way": way,
        "exact": way in (EXACT, "-"),
        **{head: figures.get(head) for head in _HEADS},
    }
