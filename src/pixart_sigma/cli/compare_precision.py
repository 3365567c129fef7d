"""`pixart-sigma compare-precision`: what fewer bits in the text encoder cost. Knows nothing of tensors.

What can be refused cheaply is refused before torch is imported.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pixart_sigma.cli.progress import progress_bar
from pixart_sigma.pipeline.samplers import DEFAULT_GUIDANCE_SCALE, DEFAULT_STEPS
from pixart_sigma.resolution import parse_size
from pixart_sigma.weights.folder import POCKET

if TYPE_CHECKING:
    from pixart_sigma.evaluation.precision.request import PrecisionRequest


def compare_precision(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder, empty or made if need be.")],
    prompt: Annotated[
        list[str] | None, typer.Argument(metavar="[PROMPT]...", help="What the pictures show.")
    ] = None,
    prompts: Annotated[str | None, typer.Option(metavar="FILE", help="More prompts, one a line.")] = None,
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME|HUB-ID|FOLDER|FILE",
            help="The pocket model, a released model by its short name, a model on the Hub, a folder in diffusers' "
            "layout, or a file of weights (official .pth, .safetensors).",
        ),
    ] = POCKET,
    components: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|HUB-ID|FOLDER",
            help="Where the parts are that the model lacks, such as the text encoder. Default: as released.",
        ),
    ] = None,
    embeddings_only: Annotated[
        bool, typer.Option("--embeddings-only", help="Make no pictures: the text encoder alone is needed.")
    ] = False,
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
    seed: Annotated[int, typer.Option(help="The picture of prompt i has seed + i.")] = 0,
    dtype: Annotated[
        str, typer.Option(help="Of what is compared with: float32, bfloat16, or auto: float32 on the CPU.")
    ] = "auto",
    device: Annotated[str, typer.Option(help="As torch names it, or auto: a GPU if there is one.")] = "auto",
) -> None:
    """Show what a text encoder in 8 or 4 bits does to embeddings and pictures."""
    from pixart_sigma.evaluation.precision.request import PrecisionRequest
    from pixart_sigma.evaluation.prompts import find_prompts

    of_file = find_prompts(prompts) if prompts is not None else ()
    request = PrecisionRequest(
        model,
        (*(prompt or ()), *(each.text for each in of_file)),
        output,
        components,
        parse_size(size) if size is not None else None,
        steps,
        guidance_scale,
        seed,
        dtype,
        device,
        embeddings_only,
    )
    _print(_compare_with_progress(request), output)


def _compare_with_progress(request: "PrecisionRequest") -> dict[str, Any]:
    with progress_bar() as progress:
        task = progress.add_task("loading", total=None)
        from pixart_sigma.evaluation.precision.run import compare_precision as run

        return run(
            request,
            lambda what, done, total: progress.update(task, description=what, completed=done, total=total),
        )


def _print(found: dict[str, Any], output: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from pixart_sigma.evaluation.precision.run import FIGURES_FILE, SHEET_FILE
    from pixart_sigma.evaluation.precision.table import HEADS, NOTES, cells, headline

    table = Table(box=None, pad_edge=False)
    for index, head in enumerate(HEADS):
        table.add_column(head, justify="right" if index else "left", no_wrap=True)
    for row in found["rows"]:
        table.add_row(*cells(row))
    console = Console(highlight=False, markup=False)
    console.print(headline(found), soft_wrap=True)
    console.print(table)
    for note in NOTES:
        console.print(note, soft_wrap=True)
    for name, reason in found["skipped"].items():
        console.print(f"{name} is left out: {reason}", soft_wrap=True)
    console.print(str(output / (FIGURES_FILE if found["making"] is None else SHEET_FILE)), soft_wrap=True)
