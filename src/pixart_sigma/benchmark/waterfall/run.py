"""A waterfall from its options to its table. The commands' other half."""

from __future__ import annotations

from collections.abc import Sequence

from pixart_sigma.benchmark.figures import collect, render
from pixart_sigma.benchmark.inference.scenarios import choose
from pixart_sigma.benchmark.outcome import (
    Outcome,
    Output,
    Say,
    benchmark_device,
    checked_options,
    chosen_dtypes,
)
from pixart_sigma.benchmark.table import Row
from pixart_sigma.benchmark.waterfall.measure import Suite, measure_waterfall
from pixart_sigma.pipeline.compiler import check_compiler


def run_waterfall(
    suite: Suite,
    scenarios: Sequence[str],
    dtypes: Sequence[str],
    device: str,
    rounds: int,
    num_steps: int | None,
    batch: int,
    compiled: bool,
    output: Output,
    say: Say,
) -> Outcome:
    """The waterfall of a suite. scenarios, dtypes: names; none: all, but for heavy scenarios on a CPU.

    num_steps: of a picture, for suite pipeline. batch: pictures at once. compiled: a last row with compiled blocks.
    Raises InvalidInput for unknown names and for numbers out of range, MissingDependency where nothing can be compiled.
    """
    options = checked_options(rounds, num_steps, batch)
    where = benchmark_device(device)
    chosen = choose(suite, list(scenarios), where.type, batch)
    precisions = chosen_dtypes(list(dtypes))
    if compiled:
        check_compiler()
    chains: dict[tuple[str, str], Row] = {}
    for row in measure_waterfall(suite, chosen, precisions, where, rounds, num_steps or 1, compiled, say):
        chains[row["scenario"], row["dtype"]] = row
        rows = list(chains.values())
        figures = collect(f"{suite}-waterfall", where, options, rows)
        if row["next"] is not None:
            figures["incomplete"] = f"{row['scenario']} in {row['dtype']} ends before {row['next']!r}"
        output.write(figures)  # link by link: a chain takes an hour
    failures = (
        f"{row['scenario']} in {row['dtype']}: {row['failed']}" for row in rows if row["failed"] is not None
    )
    return Outcome(render(figures), tuple(failures))
