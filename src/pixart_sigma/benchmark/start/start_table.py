"""The table of suite start: medians since each process was started."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from pixart_sigma.benchmark.ratio import ratio_of_medians
from pixart_sigma.benchmark.table import Row

_HEADS = ("whole s", "fastest", "imports s", "first step s", "speed", "levels from diffusers")


def summarise(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """What `measure_start` gave → a row for each side; a scenario that failed has one row that says why."""
    summary: list[Row] = []
    for row in rows:
        if row["failed"] is not None:
            summary.append(_line(row, f"failed: {row['failed']}", {}))
            continue
        sides = row["sides"]
        (*_, theirs) = sides.values()  # diffusers stands last
        for name, side in sides.items():
            summary.append(_line(row, name, _figures(side, theirs)))
    return summary


def _figures(side: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    whole, other = ([run["ended"] for run in each["runs"]] for each in (side, theirs))
    found = ratio_of_medians(other, whole)
    return {
        "whole s": median(whole),
        "fastest": min(whole),
        "imports s": _median(side, "imported"),
        "first step s": _median(side, "first_step"),
        "speed": "1.00x"
        if side is theirs
        else f"{found.estimate:.2f}x ({found.low:.2f} to {found.high:.2f})",
        "levels from diffusers": side["levels"],
    }


def _median(side: Mapping[str, Any], stamp: str) -> float | None:
    """None for a side that does not tell."""
    times = [run[stamp] for run in side["runs"] if stamp in run]
    return median(times) if times else None


def _line(row: Mapping[str, Any], side: str, figures: Mapping[str, Any]) -> Row:
    return {
        "scenario": row["scenario"],
        "steps": row["steps"],
        "side": side,
        **{head: figures.get(head) for head in _HEADS},
    }
