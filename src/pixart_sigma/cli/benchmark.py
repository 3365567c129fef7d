"""`pixart-sigma benchmark`: measures, and prints a table. Knows nothing of what is measured."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def benchmark(
    suite: Annotated[str, typer.Argument(help="train-step, ablations, plan or attention.")],
    scenario: Annotated[
        list[str] | None,
        typer.Option(
            help="One of the suite's scenarios, such as xl-4-blocks-256; may be repeated. Default: all."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="As torch names it, or auto: a GPU if there is one.")] = "auto",
    rounds: Annotated[int, typer.Option(help="Timed steps of each row; their median counts.")] = 7,
    compile_: Annotated[bool, typer.Option("--compile", help="Also time the compiled step.")] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the figures to this file too.")
    ] = None,
) -> None:
    """Time training steps against a plain loop, or against the cost model."""
    from pixart_sigma.benchmark.run import run_suite

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    print(run_suite(suite, scenario or [], device, rounds, compile_, json_file, say))
