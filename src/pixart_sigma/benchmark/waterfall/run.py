"""A waterfall from its options to its table. The commands' other half."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pixart_sigma.benchmark.figures import collect, render
from pixart_sigma.benchmark.inference.scenarios import choose
from pixart_sigma.benchmark.outcome import Outcome, Output, Say, check_rounds, chosen_dtypes
from pixart_sigma.benchmark.table import Row
from pixart_sigma.benchmark.waterfall.measure import Suite, measure_waterfall
from pixart_sigma.pipeline.device import resolve_device
from pixart_sigma.pipeline.request import Request


def run_waterfall(
    suite: Suite,
    scenarios: Sequence[str],
    dtypes: Sequence[str],
    device: str,
    rounds: int,
    num_steps: int | None,
    output: Output,
    say: Say,
) -> Outcome:
    """The waterfall of a suite. scenarios, dtypes: names; none: all, but for heavy scenarios on a CPU.

    num_steps: of a picture, for suite pipeline. Raises InvalidInput for unknown names and for numbers out of range.
    """
    check_rounds(rounds)
    where = resolve_device(device)
    chosen = choose(suite, list(scenarios), where.type)
    precisions = chosen_dtypes(list(dtypes))
    options: dict[str, Any] = {"rounds": rounds}
    if num_steps is not None:
        Request(("a prompt",), num_steps=num_steps)  # which knows the rule
        options["steps"] = num_steps
    chains: dict[tuple[str, str], Row] = {}
    for row in measure_waterfall(suite, chosen, precisions, where, rounds, num_steps or 1, say):
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
