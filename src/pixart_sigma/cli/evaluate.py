"""`pixart-sigma evaluate`: a model and prompts → pictures, figures, a page. Knows nothing of tensors.

What can be refused cheaply is refused before torch is imported.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pixart_sigma.cli.progress import progress_bar
from pixart_sigma.pipeline.samplers import DEFAULT_GUIDANCE_SCALE, DEFAULT_STEPS
from pixart_sigma.resolution import parse_size

if TYPE_CHECKING:
    from pixart_sigma.evaluation.request import EvaluationRequest


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="NAME|HUB-ID|FOLDER|FILE",
            help="The pocket model, a released model by its short name, a model on the Hub, a folder in diffusers' "
            "layout, or a file of weights (official .pth, .safetensors).",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder; pictures that are there already are kept.")
    ],
    components: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|HUB-ID|FOLDER",
            help="Where the parts are that the model lacks, such as the text encoder. Default: as released.",
        ),
    ] = None,
    prompts: Annotated[
        str,
        typer.Option(metavar="pocket|FILE", help="The drawn world's fixed list, or one prompt a line."),
    ] = "pocket",
    num: Annotated[
        int | None, typer.Option(metavar="N", help="Only so many of the prompts, evenly spread.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Pixels, multiples of 16. Default: the model's own.")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(help=f"Denoising steps. Default: those of the model's sampler, mostly {DEFAULT_STEPS}."),
    ] = None,
    guidance_scale: Annotated[
        float | None,
        typer.Option(
            help="How closely to follow the prompt; 1: off. "
            f"Default: that of the model's sampler, mostly {DEFAULT_GUIDANCE_SCALE}."
        ),
    ] = None,
    features: Annotated[
        str,
        typer.Option(
            metavar="pocket|inception:PATH|clip:PATH_OR_ID",
            help="What FID, CMMD and the CLIP score are measured with.",
        ),
    ] = "pocket",
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|FOLDER",
            help="What FID and CMMD compare with: a saved reference, or real pictures. Default: drawn scenes.",
        ),
    ] = None,
    save_reference: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep the reference, to be shared.")
    ] = None,
    device: Annotated[str, typer.Option(help="As torch names it, or auto: a GPU if there is one.")] = "auto",
) -> None:
    """Measure what a model is worth: prompt adherence, CLIP score, FID, CMMD, words on signs."""
    from pixart_sigma.evaluation.prompts import evenly, find_prompts
    from pixart_sigma.evaluation.request import EvaluationRequest

    request = EvaluationRequest(
        model,
        evenly(find_prompts(prompts), num),
        output,
        parse_size(size) if size is not None else None,
        steps,
        guidance_scale,
        features,
        reference,
        save_reference,
        device,
        components,
    )
    _print(_evaluate_with_progress(request), output)


def _evaluate_with_progress(request: "EvaluationRequest") -> dict[str, Any]:
    with progress_bar() as progress:
        task = progress.add_task("loading", total=len(request.prompts))
        from pixart_sigma.evaluation.run import evaluate as run

        return run(
            request,
            lambda what, done, total: progress.update(task, description=what, completed=done, total=total),
        )


def _print(metrics: dict[str, Any], output: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from pixart_sigma.evaluation.report import COLUMNS, PAGE_FILE, columns, headline, rows

    heads = columns(metrics)
    table = Table("figure", box=None, pad_edge=False)
    for name in ["on", *heads]:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows(metrics):
        table.add_row(row.label, row.num, *row.cells, style=None if row.is_part else "bold")
    console = Console(highlight=False, markup=False)
    console.print(headline(metrics), soft_wrap=True)
    console.print(table)
    for name in heads:
        console.print(f"{name}: {COLUMNS[name]}", soft_wrap=True)
    console.print(str(output / PAGE_FILE), soft_wrap=True)
