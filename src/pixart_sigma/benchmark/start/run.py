"""Suite start from its options to its table. The command's other half."""

from __future__ import annotations

from collections.abc import Sequence

from pixart_sigma.benchmark.figures import collect, render
from pixart_sigma.benchmark.outcome import Outcome, Output, Say, benchmark_device, check_rounds
from pixart_sigma.benchmark.start.measure import measure_start
from pixart_sigma.benchmark.start.scenarios import choose
from pixart_sigma.benchmark.table import Row


def run_start(scenarios: Sequence[str], device: str, rounds: int, output: Output, say: Say) -> Outcome:
    """Run suite start. scenarios: names; none: all. Raises InvalidInput for unknown names and for no rounds."""
    check_rounds(rounds)
    chosen = choose(list(scenarios))
    where = benchmark_device(device)
    rows: list[Row] = []
    for row in measure_start(chosen, where, rounds, say):
        rows.append(row)
        figures = collect("start", where, {"rounds": rounds}, rows)
        output.write(figures)
    failures = (f"{row['scenario']}: {row['failed']}" for row in rows if row["failed"] is not None)
    return Outcome(render(figures), tuple(failures))
