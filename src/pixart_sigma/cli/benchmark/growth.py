"""The suites that time how cost grows with the number of tokens, and what fewer keys and values save."""

from pathlib import Path
from typing import Annotated

import typer

from pixart_sigma.cli.benchmark.options import (
    Device,
    Dtypes,
    JsonFile,
    MarkdownFile,
    Rounds,
    Scenarios,
    conclude,
    say,
)


def time_compression(
    scenario: Scenarios = None,
    dtype: Dtypes = None,
    device: Device = "auto",
    rounds: Rounds = 7,
    json_file: JsonFile = None,
    markdown_file: MarkdownFile = None,
) -> None:
    """A forward pass with compressed keys and values, beside one without, and the predicted saving."""
    from pixart_sigma.benchmark.growth.run import run_compression
    from pixart_sigma.benchmark.outcome import Output

    output = Output(json_file, markdown_file)
    conclude(run_compression(scenario or (), dtype or (), device, rounds, output, say))


def time_scaling(
    scenario: Scenarios = None,
    dtype: Dtypes = None,
    device: Device = "auto",
    rounds: Rounds = 7,
    plot: Annotated[
        Path | None, typer.Option(help="Draw times, fits and counted operations: a PNG file.")
    ] = None,
    json_file: JsonFile = None,
    markdown_file: MarkdownFile = None,
) -> None:
    """A forward pass over the number of tokens, with a fit, and counted operations beyond."""
    from pixart_sigma.benchmark.growth.run import run_scaling
    from pixart_sigma.benchmark.outcome import Output

    output = Output(json_file, markdown_file)
    conclude(run_scaling(scenario or (), dtype or (), device, rounds, plot, output, say))
