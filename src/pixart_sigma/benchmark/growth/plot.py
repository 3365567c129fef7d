"""Time over tokens as a PNG, both axes logarithmic: measured points, the fit, and what the matrix rate alone allows.

Knows nothing of how it was measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pixart_sigma.benchmark.growth.scaling_table import Curve, curves

_DOTS_PER_INCH = 144
_PANEL = 4.6, 3.8
"""Inches."""
_COLOURS = ("#1f5fa8", "#c2571a", "#3b8a4a")
_POINTS_OF_A_LINE = 60


def plot_growth(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """A panel a dtype, a colour a way."""
    draw(curves(rows)).savefig(file, format="png", dpi=_DOTS_PER_INCH)


def draw(found: Sequence[Curve]) -> Any:
    """Curves → matplotlib's figure."""
    from matplotlib.figure import Figure

    dtypes = list(dict.fromkeys(curve.dtype for curve in found))
    figure = Figure(figsize=(_PANEL[0] * len(dtypes), _PANEL[1]), layout="constrained")
    panels = figure.subplots(1, len(dtypes), squeeze=False, sharey=True)[0]
    for axes, dtype in zip(panels, dtypes, strict=True):
        for curve, colour in zip((one for one in found if one.dtype == dtype), _COLOURS, strict=False):
            _draw_curve(axes, curve, colour)
        axes.set_title(dtype, fontsize=9)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("tokens", fontsize=8)
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=8)
        axes.legend(frameon=False, fontsize=7)
    panels[0].set_ylabel("seconds of a forward pass", fontsize=8)
    return figure


def _draw_curve(axes: Any, curve: Curve, colour: str) -> None:
    tokens = [row["tokens"] for row in curve.rows]
    timed = [(count, time) for count, time in zip(tokens, curve.seconds, strict=True) if time is not None]
    axes.plot(
        [count for count, _ in timed],
        [time for _, time in timed],
        "o",
        color=colour,
        markersize=5,
        label=f"{curve.way}, measured",
    )
    if curve.fit is not None and timed:
        # Solid through what was timed, dashed beyond.
        ends = (tokens[0], timed[-1][0], tokens[-1])
        for style, first, last in (("-", ends[0], ends[1]), ("--", ends[1], ends[2])):
            if last <= first:
                continue
            line = [
                first * (last / first) ** (step / (_POINTS_OF_A_LINE - 1))
                for step in range(_POINTS_OF_A_LINE)
            ]
            label = f"{curve.way}, fit" if style == "-" else f"{curve.way}, extrapolated"
            axes.plot(
                line,
                [curve.fit.seconds(count) for count in line],
                style,
                color=colour,
                linewidth=1.2,
                label=label,
            )
    if curve.rate is not None:
        floor = [row["flops"][curve.way] / curve.rate for row in curve.rows]
        axes.plot(tokens, floor, ":", color=colour, linewidth=1.2, label=f"{curve.way}, FLOP / matrix rate")
