"""Plots of studies and of caption lengths, as PNG. Knows nothing of what the figures mean."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pixart_sigma.reproduction.metric import METRICS
from pixart_sigma.reproduction.results import CellResult
from pixart_sigma.reproduction.study import Study
from pixart_sigma.reproduction.verdict import spread

_DOTS_PER_INCH = 100
_PANEL = 4.2, 3.2
"""Inches."""
_PANELS_A_ROW = 3


def plot_study(study: Study, results: Mapping[str, CellResult], file: Path) -> None:
    """A panel a metric: curves over steps if any cell has more than one point, bars being the standard deviation over
    the seeds; else a point a cell, with a grey line through the values of each seed, since a seed's cells go together.
    """
    curves = any(len(cell.values) > 1 for cell in results.values())
    num_rows = math.ceil(len(study.metrics) / _PANELS_A_ROW)
    figure = _figure(_PANELS_A_ROW, _PANEL[1] * num_rows + 0.2 * len(results) * curves)
    panels = figure.subplots(num_rows, _PANELS_A_ROW, squeeze=False).flatten()
    for number, (axes, name) in enumerate(zip(panels, study.metrics, strict=False)):
        axes.set_title(METRICS[name].heading, fontsize=9)
        if curves:
            _draw_curves(axes, results, name)
        else:
            _draw_points(axes, study, results, name)
            axes.tick_params(labelleft=number % _PANELS_A_ROW == 0)
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=8)
    for axes in panels[len(study.metrics) :]:
        axes.remove()
    if curves:
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    figure.savefig(file, format="png", dpi=_DOTS_PER_INCH)


def plot_histogram(lengths: Mapping[str, Sequence[int]], label: str, file: Path) -> None:
    """One histogram over another, each kind's own share."""
    figure = _figure(2, _PANEL[1])
    axes = figure.add_subplot()
    bins = range(0, max(max(each) for each in lengths.values()) + 6, 5)
    for name, values in lengths.items():
        mean = sum(values) / len(values)
        axes.hist(
            values, bins=bins, density=True, histtype="stepfilled", alpha=0.5, label=f"{name}: {mean:.1f}"
        )
    axes.set_xlabel(label)
    axes.set_ylabel("share")
    axes.legend(frameon=False, fontsize=8, title="on average", title_fontsize=8)
    figure.savefig(file, format="png", dpi=_DOTS_PER_INCH)


def _figure(num_panels: int, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(_PANEL[0] * num_panels, height), layout="constrained")


def _draw_curves(axes: Any, results: Mapping[str, CellResult], metric: str) -> None:
    for cell in results.values():
        steps = sorted(cell.values)
        spreads = [spread(cell.values[each][metric]) for each in steps]
        means, deviations = [each.mean for each in spreads], [each.deviation for each in spreads]
        axes.errorbar(
            steps, means, deviations, label=cell.label, marker="o", markersize=3, linewidth=1.2, capsize=2
        )
    axes.set_xscale("log")
    axes.set_xlabel("steps", fontsize=8)


def _draw_points(axes: Any, study: Study, results: Mapping[str, CellResult], metric: str) -> None:
    values = [results[cell.label].at(None)[metric] for cell in study.cells]
    sides = [cell.stage.side for cell in study.cells]
    for side in dict.fromkeys(sides):  # cells of two resolutions have no values in common
        rows = [row for row, each in enumerate(sides) if each == side]
        for seed in range(len(values[0])):
            axes.plot([values[row][seed] for row in rows], rows, ".-", color="#bbbbbb", linewidth=0.8)
    means = [spread(each).mean for each in values]
    axes.plot(means, range(len(means)), "o", color="#333333", markersize=5)
    axes.set_yticks(range(len(means)), [cell.label for cell in study.cells])
    axes.invert_yaxis()
