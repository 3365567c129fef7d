"""The suite that measures memory."""

from typing import Annotated

import typer

from pixart_sigma.cli.benchmark.options import Device, JsonFile, MarkdownFile, Scenarios, conclude, say


def measure_memory(
    scenario: Scenarios = None,
    device: Device = "auto",
    steps: Annotated[
        int, typer.Option(help="Denoising steps of a picture; memory does not depend on it.")
    ] = 1,
    json_file: JsonFile = None,
    markdown_file: MarkdownFile = None,
) -> None:
    """The most memory that parts and pictures take, beside the plan's prediction."""
    from pixart_sigma.benchmark.outcome import Output
    from pixart_sigma.benchmark.run import run_memory

    output = Output(json_file, markdown_file)
    conclude(run_memory(scenario or (), device, steps, output, say))
