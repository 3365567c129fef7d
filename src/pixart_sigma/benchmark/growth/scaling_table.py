"""The table of suite scaling: measured times, a fit through them, and what it says of sizes that were not timed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from pixart_sigma.benchmark.growth.fit import Fit, fit_growth
from pixart_sigma.benchmark.growth.scenarios import EXACT
from pixart_sigma.benchmark.table import Row


@dataclass(frozen=True)
class Curve:
    """One way in one dtype, smallest size first. seconds: None where it was not timed. rate: of products, in FLOP/s."""

    dtype: str
    way: str
    rows: tuple[Mapping[str, Any], ...]
    seconds: tuple[float | None, ...]
    fit: Fit | None
    rate: float | None

    @property
    def name(self) -> str:
        return f"{self.dtype}, {self.way}"


def curves(rows: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """What `measure` and `counted` gave → a curve for each dtype and way."""
    found = []
    for dtype in dict.fromkeys(row["dtype"] for row in rows):
        # A size that failed is one that was not timed; its reason is told elsewhere.
        those = sorted((row for row in rows if row["dtype"] == dtype), key=lambda row: row["tokens"])
        rates = [row["rates"]["matrix"] for row in those if "rates" in row]
        for way in those[0]["flops"]:
            seconds = [median(row["ways"][way]["seconds"]) if "ways" in row else None for row in those]
            timed = [
                (row["tokens"], time) for row, time in zip(those, seconds, strict=True) if time is not None
            ]
            fit = fit_growth([tokens for tokens, _ in timed], [time for _, time in timed])
            rate = median(rates) if rates else None
            found.append(Curve(dtype, way, tuple(those), tuple(seconds), fit, rate))
    return found


def summarise(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """A row for each size of each curve."""
    return [
        _line(curve, row, seconds)
        for curve in curves(rows)
        for row, seconds in zip(curve.rows, curve.seconds, strict=True)
    ]


def note(rows: Sequence[Mapping[str, Any]]) -> str:
    """The fits, for below the table."""
    fits = [f"{curve.name}: {curve.fit}" for curve in curves(rows) if curve.fit is not None]
    return f"Fits, N tokens: {'; '.join(fits)}." if fits else "Too few sizes for a fit."


def _line(curve: Curve, row: Mapping[str, Any], seconds: float | None) -> Row:
    flops = row["flops"][curve.way]
    fitted = None if curve.fit is None else curve.fit.seconds(row["tokens"])
    if row["failed"] is not None:
        kind = f"failed: {row['failed']}"
    elif seconds is not None:
        kind = "measured"
    else:
        kind = "not timed" if fitted is None else "extrapolated"
    return {
        "dtype": curve.dtype,
        "way": curve.way,
        "exact": curve.way == EXACT,
        "pixels": "x".join(str(side) for side in row["size"]),
        "tokens": row["tokens"],
        "blocks": row["blocks"][1],
        "TFLOP": flops / 1e12,
        "s": seconds,
        "fit s": fitted,
        "fit error": None if seconds is None or fitted is None else f"{fitted / seconds - 1:+.0%}",
        "GFLOP/s": None if seconds is None else flops / seconds / 1e9,
        "at the matrix rate s": None if curve.rate is None else flops / curve.rate,
        "kind": kind,
    }
