"""The suites that time a training step, and what plans rest on."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pixart_sigma.cli.benchmark.options import (
    Device,
    JsonFile,
    MarkdownFile,
    Rounds,
    Scenarios,
    conclude,
    say,
)

if TYPE_CHECKING:
    from pixart_sigma.benchmark.run import TrainingSuite


def time_train_step(
    scenario: Scenarios = None,
    device: Device = "auto",
    rounds: Rounds = 7,
    compile_: Annotated[bool, typer.Option("--compile", help="Also time the compiled step.")] = False,
    json_file: JsonFile = None,
    markdown_file: MarkdownFile = None,
) -> None:
    """A training step on cached features, beside a plain loop's."""
    _run("train-step", scenario, device, rounds, compile_, json_file, markdown_file)


def _plain(suite: "TrainingSuite", explanation: str) -> Callable[..., None]:
    """The command of a suite that has no options of its own; explanation: its help."""

    def command(
        scenario: Scenarios = None,
        device: Device = "auto",
        rounds: Rounds = 7,
        json_file: JsonFile = None,
        markdown_file: MarkdownFile = None,
    ) -> None:
        _run(suite, scenario, device, rounds, False, json_file, markdown_file)

    command.__doc__ = explanation
    return command


time_ablations = _plain("ablations", "A training step beside one of ours with one thing changed.")
time_plan = _plain("plan", "A training step's time, beside what the cost model says.")


def time_attention(
    device: Device = "auto",
    rounds: Rounds = 7,
    json_file: JsonFile = None,
    markdown_file: MarkdownFile = None,
) -> None:
    """The fused attention kernel, beside the package's other ways to attend."""
    _run("attention", None, device, rounds, False, json_file, markdown_file)


def _run(
    suite: "TrainingSuite",
    scenarios: list[str] | None,
    device: str,
    rounds: int,
    compiled: bool,
    json_file: Path | None,
    markdown_file: Path | None,
) -> None:
    from pixart_sigma.benchmark.outcome import Output
    from pixart_sigma.benchmark.run import run_training

    output = Output(json_file, markdown_file)
    conclude(run_training(suite, scenarios or (), device, rounds, compiled, output, say))
