"""The table of a waterfall: each row's time, its gain over the row before, and over all since the first of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from pixart_sigma.benchmark.ratio import ratio_of_medians
from pixart_sigma.benchmark.table import Row

_FIRST_OF_OURS = 1
"""In a chain; diffusers' row stands before it."""


def summarise(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """What `measure_waterfall` gave → a row for each link; a chain that failed ends with its reason."""
    summary: list[Row] = []
    for row in rows:
        gain = 1.0
        for number, link in enumerate(row["links"]):
            figures = {
                "s": median(link["seconds"]),
                "fastest": min(link["seconds"]),
                "peak MiB": None if link["peak_bytes"] is None else round(link["peak_bytes"] / 2**20),
            }
            if link["before"] is not None:
                found = ratio_of_medians(link["before"], link["seconds"])
                gain = 1.0 if number == _FIRST_OF_OURS else gain * found.estimate
                figures |= {
                    "over the row before": f"{found.estimate:.2f}x ({found.low:.2f} to {found.high:.2f})",
                    "over the first of ours": f"{gain:.2f}x",
                    "gate": f"{max(link['gate']['errors'].values()):.1e}",
                }
            summary.append(_line(row, link["name"], figures))
        if row["failed"] is not None:
            summary.append(_line(row, "-", {"gate": f"failed: {row['failed']}"}))
    return summary


def _line(row: Mapping[str, Any], name: str, figures: Mapping[str, Any]) -> Row:
    scenario = row["scenario"]
    if row.get("text_layers"):
        scenario += f" (text layers: {row['text_layers']})"
    heads = ("s", "fastest", "over the row before", "over the first of ours", "peak MiB", "gate")
    return {
        "scenario": scenario,
        "dtype": row["dtype"],
        "row": name,
        **{head: figures.get(head) for head in heads},
    }
