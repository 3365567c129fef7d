"""The suite that measures what shortcuts save and cost."""

from pathlib import Path
from typing import Annotated

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
from pixart_sigma.resolution import parse_size
from pixart_sigma.weights.folder import POCKET

HALF_AN_HOUR = 100
"""Prompts, of the pocket model at 256 px on two cores."""


def measure_shortcuts(
    pictures: Annotated[
        Path, typer.Option("--output", "-o", help="Folder; pictures that are there already are kept.")
    ],
    scenario: Scenarios = None,
    schedule: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="A schedule as --reuse-blocks takes it, as one more row; may be repeated."
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME|HUB-ID|FOLDER|FILE",
            help="The pocket model, a released model by its short name, a model on the Hub, a folder in diffusers' "
            "layout, or a file of weights (official .pth, .safetensors).",
        ),
    ] = POCKET,
    prompts: Annotated[
        str,
        typer.Option(
            metavar="pocket|FILE",
            help="The drawn world's fixed list, or one prompt a line; of these there is neither adherence nor FID.",
        ),
    ] = "pocket",
    num: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help=f"Only so many of the prompts, evenly spread. Default: {HALF_AN_HOUR}, or all of fewer.",
        ),
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Pixels, multiples of 16. Default: the model's own.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Denoising steps. Default: those of the model's sampler.")
    ] = None,
    device: Device = "auto",
    rounds: Rounds = 7,
    json_file: JsonFile = None,
    markdown_file: MarkdownFile = None,
) -> None:
    """Shortcuts beside exact pictures of the same prompts: time, likeness, prompt adherence, FID."""
    from pixart_sigma.evaluation.prompts import evenly, find_prompts
    from pixart_sigma.evaluation.request import EvaluationRequest

    found = find_prompts(prompts)
    request = EvaluationRequest(
        model,
        evenly(found, min(HALF_AN_HOUR, len(found)) if num is None else num),
        pictures,
        parse_size(size) if size is not None else None,
        steps,
        device=device,
    )
    from pixart_sigma.benchmark.outcome import Output
    from pixart_sigma.benchmark.shortcuts.run import run_shortcuts

    output = Output(json_file, markdown_file)
    conclude(run_shortcuts(scenario or (), schedule or (), request, rounds, output, say))
