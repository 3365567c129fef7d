"""The suite that times a first picture from nothing."""

from pixart_sigma.cli.benchmark.options import (
    Device,
    JsonFile,
    MarkdownFile,
    Rounds,
    Scenarios,
    conclude,
    say,
)


def time_start(
    scenario: Scenarios = None,
    device: Device = "auto",
    rounds: Rounds = 7,
    json_file: JsonFile = None,
    markdown_file: MarkdownFile = None,
) -> None:
    """The whole command with the pocket model: imports, first step, picture; beside diffusers.

    Cold: each in a fresh process. Its files are warm, in the system's cache.
    """
    from pixart_sigma.benchmark.outcome import Output
    from pixart_sigma.benchmark.start.run import run_start

    output = Output(json_file, markdown_file)
    conclude(run_start(scenario or (), device, rounds, output, say))
