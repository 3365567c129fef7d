"""The table's rows of what a suite on inference found: medians, shares, intervals. Two rows a scenario, one a side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from pixart_sigma.benchmark.table import Row

_COMPILING = ("first run s, empty cache", "first run s, warm cache")
STAGES = ("prepare", "forward", "text", "denoise", "decode", "rest")


def summarise(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """What `measure` gave → rows with the same heads; a scenario that failed has one row that says why.

    Where some rows are compiled, a column says which: speed is that beside the other side in the same mode.
    """
    found = {stage for row in rows for side in row.get("sides", {}).values() for stage in side["stages"]}
    stages = [stage for stage in STAGES if stage in found]
    modes = any(row.get("mode") == "compiled" for row in rows)
    summary: list[Row] = []
    for row in rows:
        if row["failed"] is not None:
            summary.append(_line(row, "-", stages, modes, gate=f"failed: {row['failed']}"))
            continue
        errors = row["gate"]["errors"].values()
        for name, side in row["sides"].items():
            figures = _figures(row, name, side)
            summary.append(_line(row, name, stages, modes, gate=f"{max(errors):.1e}", **figures))
    return summary


def _figures(row: Mapping[str, Any], name: str, side: Mapping[str, Any]) -> dict[str, Any]:
    seconds = median(side["seconds"])
    speed = row["speed"]
    peak = side["peak_bytes"]
    compiled = row.get("mode") == "compiled"
    first_runs = (side["empty_cache_warm_up_seconds"], side["warm_up_seconds"]) if compiled else (None, None)
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
        **dict(zip(_COMPILING, first_runs, strict=True)),
    }


def _line(row: Mapping[str, Any], side: str, stages: Sequence[str], modes: bool, **figures: Any) -> Row:
    scenario = row["scenario"]
    if row.get("text_layers"):
        scenario += f" (text layers: {row['text_layers']})"
    compiling = _COMPILING if modes else ()
    heads = (
        "s",
        "fastest",
        "speed",
        *stages,
        *compiling,
        "peak MiB",
        "of matrix rate",
        "matrix GFLOP/s",
        "gate",
    )
    return {
        "scenario": scenario,
        "dtype": row["dtype"],
        **({"mode": row.get("mode", "eager")} if modes else {}),
        "side": side,
        **{head: figures.get(head) for head in heads},
    }
