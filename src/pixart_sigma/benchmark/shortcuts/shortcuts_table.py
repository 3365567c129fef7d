"""The table of suite shortcuts: what each saves, beside what its pictures lose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from pixart_sigma.benchmark.ratio import ratio_of_medians
from pixart_sigma.benchmark.shortcuts.scenarios import EXACT
from pixart_sigma.benchmark.table import Row

NOTE = (
    "What is not exact makes other pictures than the model's. Speed, PSNR, SSIM and the change of adherence are "
    "relative to the exact pictures of the same prompts and seeds; PSNR is the mean over those that are not equal, "
    "pixel for pixel."
)
_HEADS = (
    "s",
    "fastest",
    "speed",
    "equal pictures",
    "PSNR dB",
    "SSIM",
    "prompt adherence",
    "its change, points",
    "FID",
)


def summarise(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """What `measure_shortcuts` gave → a row each; the exact one's times are of all rounds of all rows."""
    rounds = [second for row in rows for second in row["exact_seconds"] or ()]
    summary: list[Row] = []
    for row in rows:
        if row["failed"] is not None:
            summary.append(_line(row, f"failed: {row['failed']}", {}))
        elif row["scenario"] == EXACT.name:
            summary.append(_line(row, "-", _times(rounds) | _quality(row)))
        else:
            speed = ratio_of_medians(row["exact_seconds"], row["seconds"])
            told = {"speed": f"{speed.estimate:.2f}x ({speed.low:.2f} to {speed.high:.2f})"}
            summary.append(_line(row, row["options"], _times(row["seconds"]) | told | _quality(row)))
    return summary


def _times(seconds: Sequence[float]) -> dict[str, Any]:
    """Of no rounds, as where every row failed, nothing."""
    return {"s": median(seconds), "fastest": min(seconds)} if seconds else {}


def _quality(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "equal pictures": row["equal"],
        "PSNR dB": _interval(row["psnr"], ".1f"),
        "SSIM": _interval(row["ssim"], ".3f"),
        "prompt adherence": _interval(row["adherence"], ".0%"),
        "its change, points": _interval(row["adherence_change"], "+.1f", 100),
        "FID": None if row["fid"] is None else f"{row['fid']:.3f}",
    }


def _interval(found: Mapping[str, float] | None, form: str, times: float = 1) -> str | None:
    if found is None:
        return None
    estimate, low, high = (format(times * found[name], form) for name in ("estimate", "low", "high"))
    return f"{estimate} ({low} to {high})"


def _line(row: Mapping[str, Any], options: str, figures: Mapping[str, Any]) -> Row:
    return {
        "shortcut": "none" if row["scenario"] == EXACT.name else row["scenario"],
        "exact": row["scenario"] == EXACT.name,
        "options": options,
        **{head: figures.get(head) for head in _HEADS},
    }
