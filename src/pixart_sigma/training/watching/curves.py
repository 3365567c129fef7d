"""Series → SVG to stand inside a page, in the page's own colours. Knows nothing of what is drawn.

All words are the page's: an SVG holds lines and numbers only.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pixart_sigma.training.watching.series import Series, smooth, thin

# Stand-ins that matplotlib takes for colours; the page's style sheet gives the names their colours, light and dark.
_TRAINING, _VALIDATION, _INK, _RULE = "#010101", "#020202", "#030303", "#040404"
_NAMES = {
    _TRAINING: "var(--training)",
    _VALIDATION: "var(--validation)",
    _INK: "var(--muted)",
    _RULE: "var(--rule)",
}
_MOST_POINTS = 1000
_SMOOTHED_SHARE = 0.06
"""Of all points, those that the smoothed line averages over."""
_FEWEST_TO_SMOOTH = 20
_WIDE_RANGE = 4.0
"""Highest by lowest value: beyond it a logarithmic scale shows how a loss goes on after its first fall."""


@dataclass(frozen=True)
class Curves:
    """What one chart shows, with at least one series; `marks` are steps to be marked by a line."""

    training: Series | None
    validation: Series | None = None
    smoothed: bool = True
    may_be_logarithmic: bool = True
    marks: Sequence[int] = ()


def draw(curves: Curves, width: float, height: float) -> str:
    """An `<svg>` of `width` × `height` points that scales with the page; the same for the same curves."""
    import matplotlib
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "pixart-sigma",
        "font.size": 10,
        "font.family": "sans-serif",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
    }
    points_per_inch = 72
    buffer = io.StringIO()
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width / points_per_inch, height / points_per_inch), layout="constrained")
        axes = figure.add_subplot()
        _draw_lines(axes, curves)
        _set_scale(axes, curves)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return _for_page(buffer.getvalue())


def _draw_lines(axes: Any, curves: Curves) -> None:
    for step in curves.marks:
        axes.axvline(step, color=_INK, linewidth=1, linestyle=(0, (3, 3)))
    if curves.training is not None:
        raw = curves.training
        if curves.smoothed and len(raw.steps) >= _FEWEST_TO_SMOOTH:
            average = thin(smooth(raw, round(_SMOOTHED_SHARE * len(raw.steps))), _MOST_POINTS)
            axes.plot(*_points(thin(raw, _MOST_POINTS)), color=_TRAINING, linewidth=0.8, alpha=0.35)
            axes.plot(*_points(average), color=_TRAINING, linewidth=1.6)
        else:
            axes.plot(*_points(thin(raw, _MOST_POINTS)), color=_TRAINING, linewidth=1.6)
    if curves.validation is not None:
        few = len(curves.validation.steps) <= 40
        line = {"marker": "o", "markersize": 4, "markeredgewidth": 0} if few else {}
        axes.plot(*_points(thin(curves.validation, _MOST_POINTS)), color=_VALIDATION, linewidth=1.6, **line)


def _set_scale(axes: Any, curves: Curves) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    shown = [series.values for series in (curves.training, curves.validation) if series is not None]
    low, high = (float(limit) for limit in np.quantile(np.concatenate(shown), (0.0, 1.0)))
    if curves.may_be_logarithmic and low > 0 and high / low > _WIDE_RANGE:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=_log_ticks(high / low), numticks=20))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
        axes.set_ylim(low - room, high + room)
        axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.margins(x=0.02)
    axes.grid(axis="y", color=_RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_INK, length=0, pad=5)
    axes.spines["bottom"].set_color(_RULE)


def _log_ticks(ratio: float) -> tuple[float, ...]:
    """Multiples of the powers of ten that make four to ten lines over a range of highest by lowest value."""
    if ratio < 10:
        return (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
    return (1.0, 2.0, 5.0) if ratio < 1e3 else (1.0,)


def _points(series: Series) -> tuple[Any, Any]:
    return series.steps, series.values


def _for_page(svg: str) -> str:
    svg = svg[svg.index("<svg") :]
    # Without a size of its own it takes the width that the page gives it, and the viewBox keeps its shape.
    svg = re.sub(r'^(<svg[^>]*?) width="[^"]*"', r"\1", svg)
    svg = re.sub(r'^(<svg[^>]*?) height="[^"]*"', r"\1", svg)
    # Nothing refers to the names of parts, which would stand twice in a page; those of clips and markers are hashes.
    svg = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", svg)
    svg = re.sub(r"font-family: [^;]*; ", "", svg)
    for color, name in _NAMES.items():
        svg = svg.replace(color, name)
    return svg
