"""The table's rows of what a suite on inference found: medians, shares, intervals. Two rows a scenario, one a side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from pixart_sigma.benchmark.table import Row

STAGES = ("prepare", "forward", "text", "denoise", "decode", "rest")


def summarise(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """What `measure` gave → rows with the same heads; a scenario that failed has one row that says why."""
    found = {stage for row in rows for side in row.get("sides", {}).values() for stage in side["stages"]}
    stages = [stage for stage in STAGES if stage in found]
    summary: list[Row] = []
    for row in rows:
        if row["failed"] is not None:
            summary.append(_line(row, "-", stages, gate=f"failed: {row['failed']}"))
            continue
        errors = row["gate"]["errors"].values()
        for name, side in row["sides"].items():
            summary.append(_line(row, name, stages, gate=f"{max(errors):.1e}", **_figures(row, name, side)))
    return summary


def _figures(row: Mapping[str, Any], name: str, side: Mapping[str, Any]) -> dict[str, Any]:
    seconds = median(side["seconds"])
    speed = row["speed"]
    peak = side["peak_bytes"]
    return {
        "s": seconds,
        "fastest": min(side["seconds"]),
        "speed": f"{speed['estimate']:.2f}x ({speed['low']:.2f} to {speed['high']:.2f})"
        if name == "ours"
        else "1.00x",
        "of matrix rate": f"{row['flops'] / seconds / row['matrix_rate']:.0%}",
        "matrix GFLOP/s": row["matrix_rate"] / 1e9,
        "peak MiB": None if peak is None else round(peak / 2**20),
        **{stage: median(times) for stage, times in side["stages"].items()},
    }


def _line(row: Mapping[str, Any], side: str, stages: Sequence[str], **figures: Any) -> Row:
    scenario = row["scenario"]
    if row.get("text_layers"):
        scenario += f" (text layers: {row['text_layers']})"
    heads = ("s", "fastest", "speed", *stages, "peak MiB", "of matrix rate", "matrix GFLOP/s", "gate")
    return {
        "scenario": scenario,
        "dtype": row["dtype"],
        "side": side,
        **{head: figures.get(head) for head in heads},
    }
