"""One suite from its name and options to its table. The command's other half."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pixart_sigma.allocator import keep_freed_memory
from pixart_sigma.benchmark.attention import attention
from pixart_sigma.benchmark.figures import collect, render
from pixart_sigma.benchmark.inference.measure import measure
from pixart_sigma.benchmark.inference.scenarios import Suite as InferenceSuite
from pixart_sigma.benchmark.inference.scenarios import choose as choose_inference
from pixart_sigma.benchmark.memory.measure import measure_memory
from pixart_sigma.benchmark.memory.scenarios import choose as choose_memory
from pixart_sigma.benchmark.outcome import (
    Outcome,
    Output,
    Say,
    benchmark_device,
    check_rounds,
    checked_options,
    chosen_dtypes,
)
from pixart_sigma.benchmark.table import Row
from pixart_sigma.benchmark.training.plan_check import plan_check
from pixart_sigma.benchmark.training.scenarios import choose as choose_training
from pixart_sigma.benchmark.training.train_step import ablations, train_step
from pixart_sigma.pipeline.compiler import check_compiler
from pixart_sigma.pipeline.request import Request

TrainingSuite = Literal["train-step", "ablations", "plan", "attention"]


def run_inference(
    suite: InferenceSuite,
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
    """Run a suite on inference. scenarios, dtypes: names; none: all, but for heavy scenarios on a CPU.

    num_steps: of a picture, for suite pipeline. batch: pictures (or prompts) at once. compiled: rows of both sides
    compiled too, for suites that have a transformer.
    Raises InvalidInput for unknown names and for numbers out of range, MissingDependency where nothing can be compiled.
    """
    options = checked_options(rounds, num_steps, batch)
    where = benchmark_device(device)
    chosen = choose_inference(suite, list(scenarios), where.type, batch)
    precisions = chosen_dtypes(list(dtypes))
    if compiled:
        check_compiler()
    keep_freed_memory()
    rows: list[Row] = []
    for row in measure(suite, chosen, precisions, where, rounds, num_steps or 1, compiled, say):
        rows.append(row)
        figures = collect(suite, where, options, rows)
        output.write(figures)  # row by row: whoever loses patience keeps what there is
    failures = (
        f"{row['scenario']} in {row['dtype']}: {row['failed']}" for row in rows if row["failed"] is not None
    )
    return Outcome(render(figures), tuple(failures))


def run_training(
    suite: TrainingSuite,
    scenarios: Sequence[str],
    device: str,
    rounds: int,
    compiled: bool,
    output: Output,
    say: Say,
) -> Outcome:
    """Run a suite on training. scenarios: names; none: all of the device's; suite attention has none.

    compiled: also time the compiled step, in suite train-step. Raises InvalidInput for unknown names.
    """
    check_rounds(rounds)
    where = benchmark_device(device)
    chosen = choose_training(where.type, list(scenarios))
    keep_freed_memory()
    if suite == "train-step":
        measured = train_step(chosen, where, rounds, compiled, say)
    elif suite == "ablations":
        measured = ablations(chosen, where, rounds, say)
    elif suite == "plan":
        measured = plan_check(chosen, where, rounds, say)
    else:
        measured = attention(where, rounds, say)
    rows: list[Row] = []
    for row in measured:
        rows.append(row)
        figures = collect(suite, where, {"rounds": rounds}, rows)
        output.write(figures)
    return Outcome(render(figures))


def run_memory(scenarios: Sequence[str], device: str, num_steps: int, output: Output, say: Say) -> Outcome:
    """Run suite memory. scenarios: names; none: the device's. num_steps: of a picture.

    Raises InvalidInput for unknown names and for numbers out of range.
    """
    Request(("a prompt",), num_steps=num_steps)  # which knows the rule
    where = benchmark_device(device)
    rows: list[Row] = []
    failures = []
    for row in measure_memory(choose_memory(list(scenarios), where.type), where, num_steps, say):
        rows.append(row)
        figures = collect("memory", where, {"steps": num_steps}, rows)
        output.write(figures)
        if str(row["difference"]).startswith("failed"):
            failures.append(f"{row['scenario']}, {row['way']}: {row['difference']}")
    return Outcome(render(figures), tuple(failures))
