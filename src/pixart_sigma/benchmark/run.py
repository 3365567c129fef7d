"""One suite from its name and options to its table. The command's other half."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

from pixart_sigma.allocator import keep_freed_memory
from pixart_sigma.benchmark.attention import attention
from pixart_sigma.benchmark.plan_check import plan_check
from pixart_sigma.benchmark.scenarios import choose
from pixart_sigma.benchmark.table import describe_machine, render_table, write_json
from pixart_sigma.benchmark.train_step import ablations, train_step
from pixart_sigma.errors import InvalidInput
from pixart_sigma.pipeline.text_to_image import resolve_device
from pixart_sigma.weights.atomic import check_writable

Suite = Literal["train-step", "ablations", "plan", "attention"]


def run_suite(
    suite: str,
    scenarios: list[str],
    device: str,
    rounds: int,
    compiled: bool,
    json_file: Path | None,
    say: Callable[[str], None],
) -> str:
    """Run a suite; returns its table, and writes the JSON file if there is to be one.

    scenarios: names; none: all of the device's. Raises InvalidInput for unknown names, and for options that the suite
    would ignore.
    """
    if suite not in get_args(Suite):
        raise InvalidInput(f"unknown suite {suite!r}; one of {', '.join(get_args(Suite))}")
    if rounds < 1:
        raise InvalidInput(f"rounds is {rounds}; it must be at least 1 (--rounds 5)")
    if suite != "train-step" and compiled:
        raise InvalidInput(f"--compile belongs to suite train-step, not to {suite}; leave it out")
    if suite == "attention" and scenarios:
        raise InvalidInput("suite attention has no scenarios; leave --scenario out")
    if json_file is not None:
        check_writable(json_file)
    where = resolve_device(device)
    chosen = choose(where.type, scenarios)
    keep_freed_memory()
    if suite == "train-step":
        rows = train_step(chosen, where, rounds, compiled, say)
    elif suite == "ablations":
        rows = ablations(chosen, where, rounds, say)
    elif suite == "plan":
        rows = plan_check(chosen, where, rounds, say)
    else:
        rows = attention(where, rounds, say)
    machine = describe_machine(where)
    if json_file is not None:
        write_json(json_file, suite, machine, rows)
    return f"{machine}\n\n{render_table(rows)}"
