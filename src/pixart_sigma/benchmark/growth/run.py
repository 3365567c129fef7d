"""Suites kv-compression and scaling from their options to their tables. The commands' other half."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pixart_sigma.allocator import keep_freed_memory
from pixart_sigma.benchmark.figures import collect, render
from pixart_sigma.benchmark.growth.fit import FEWEST_POINTS
from pixart_sigma.benchmark.growth.measure import counted, measure
from pixart_sigma.benchmark.growth.plot import plot_growth
from pixart_sigma.benchmark.growth.scaling_table import curves, note
from pixart_sigma.benchmark.growth.scenarios import SCENARIOS, TINY, Scenario, choose
from pixart_sigma.benchmark.outcome import Outcome, Output, Say, benchmark_device, check_rounds, chosen_dtypes
from pixart_sigma.benchmark.table import Row
from pixart_sigma.errors import InvalidInput
from pixart_sigma.weights.atomic import check_writable, written_whole


def run_compression(
    scenarios: Sequence[str],
    dtypes: Sequence[str],
    device: str,
    rounds: int,
    output: Output,
    say: Say,
) -> Outcome:
    """Suite kv-compression. scenarios, dtypes: names; none: all, but for the heavy scenarios on a CPU.

    Raises InvalidInput for unknown names and for no rounds.
    """
    check_rounds(rounds)
    precisions = chosen_dtypes(list(dtypes))
    where = benchmark_device(device)
    chosen = choose("kv-compression", list(scenarios), where.type)
    keep_freed_memory()
    rows: list[Row] = []
    for row in measure("kv-compression", chosen, precisions, where, rounds, say):
        rows.append(row)
        figures = collect("kv-compression", where, {"rounds": rounds}, rows)
        output.write(figures)
    return Outcome(render(figures), _failures(rows))


def run_scaling(
    scenarios: Sequence[str],
    dtypes: Sequence[str],
    device: str,
    rounds: int,
    plot: Path | None,
    output: Output,
    say: Say,
) -> Outcome:
    """Suite scaling; plot: a PNG. The others are those of `run_compression`.

    Raises InvalidInput too for fewer than three sizes, through which nothing can be fitted, and for a plot that cannot
    be written.
    """
    check_rounds(rounds)
    precisions = chosen_dtypes(list(dtypes))
    where = benchmark_device(device)
    chosen = choose("scaling", list(scenarios), where.type)
    if len({scenario.num_tokens for scenario in chosen}) < FEWEST_POINTS:
        raise InvalidInput(
            f"scaling of {len(chosen)} sizes has no fit; name at least {FEWEST_POINTS} of them (--scenario)"
        )
    if plot is not None:
        check_writable(plot)
    keep_freed_memory()
    rows: list[Row] = []
    for row in measure("scaling", chosen, precisions, where, rounds, say):
        rows.append(row)
        figures = _scaling_figures([*rows, *_beyond(chosen, rows)], where, rounds)
        output.write(figures)
    if plot is not None:
        with written_whole(plot) as temporary:
            plot_growth(figures["rows"], temporary)
    return Outcome(render(figures), _failures(rows))


def _scaling_figures(rows: Sequence[Row], where: Any, rounds: int) -> dict[str, Any]:
    fits = {curve.name: asdict(curve.fit) for curve in curves(rows) if curve.fit is not None}
    figures = collect("scaling", where, {"rounds": rounds}, rows)
    return figures | {"fits": fits, "note": note(rows)}


def _beyond(chosen: Sequence[Scenario], rows: Sequence[Row]) -> list[Row]:
    """Sizes of the same model that are larger than any that is timed: counted only."""
    largest = max(chosen, key=lambda scenario: scenario.num_tokens)
    larger = [
        scenario
        for scenario in (*SCENARIOS["scaling"], *TINY["scaling"])
        if scenario.num_tokens > largest.num_tokens
        and (scenario.config.width, scenario.config.num_layers)
        == (largest.config.width, largest.config.num_layers)
    ]
    dtypes = dict.fromkeys(row["dtype"] for row in rows)
    return [counted("scaling", scenario, dtype) for dtype in dtypes for scenario in larger]


def _failures(rows: Sequence[Row]) -> tuple[str, ...]:
    return tuple(
        f"{row['scenario']} in {row['dtype']}: {row['failed']}" for row in rows if row["failed"] is not None
    )
