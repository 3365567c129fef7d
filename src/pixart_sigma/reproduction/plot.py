"""Plots of studies and of caption lengths, as PNG. Knows nothing of what the figures mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pixart_sigma.reproduction.metric import METRICS
from pixart_sigma.reproduction.results import CellResult
from pixart_sigma.reproduction.study import Study
from pixart_sigma.reproduction.verdict import spread

_DOTS_PER_INCH = 144
_PANEL = 4.2, 3.6
"""Inches."""


def plot_study(study: Study, results: Mapping[str, CellResult], file: Path) -> None:
    """A panel a metric: curves over steps if any cell has more than one point, else a point a cell.

    Bars are the standard deviation over the seeds.
    """
    curves = any(len(cell.values) > 1 for cell in results.values())
    figure = _figure(len(study.metrics), _PANEL[1] + 0.25 * len(results) * curves)
    panels = figure.subplots(1, len(study.metrics), squeeze=False)[0]
    for axes, name in zip(panels, study.metrics, strict=True):
        axes.set_title(METRICS[name].heading, fontsize=9)
        draw = _draw_curves if curves else _draw_points
        draw(axes, results, name)
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=8)
        if axes is not panels[0] and not curves:
            axes.tick_params(labelleft=False)
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


def _draw_points(axes: Any, results: Mapping[str, CellResult], metric: str) -> None:
    for row, cell in enumerate(results.values()):
        values = cell.at(None)[metric]
        found = spread(values)
        axes.errorbar(found.mean, row, xerr=found.deviation, color="#333333", marker="o", capsize=3)
        axes.plot(values, [row] * len(values), ".", color="#888888", markersize=4)
    axes.set_yticks(range(len(results)), list(results))
    axes.invert_yaxis()
