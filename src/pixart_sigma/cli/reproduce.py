"""`pixart-sigma reproduce`: one of the paper's tables or figures, with the pocket world. Knows nothing of tensors."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from pixart_sigma.errors import Stopped
from pixart_sigma.weights.folder import POCKET


def reproduce(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...",
            help="table1, table2, table3a, table3b, table3c, fig6, fig8, captions, or chain, the pocket model's "
            "making; one after the other.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder; what is finished there is kept, the rest goes on."),
    ] = Path("runs/reproduce"),
    seeds: Annotated[int, typer.Option(help="Trainings of every cell, at least 2.")] = 2,
    fast: Annotated[
        bool, typer.Option("--fast", help="A few steps of everything: a smoke test, no result.")
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what would be trained and for how long; train nothing.")
    ] = False,
    pocket: Annotated[
        str,
        typer.Option(
            metavar="NAME|FOLDER", help="The model whose autoencoder and text encoder the studies stand on."
        ),
    ] = POCKET,
    device: Annotated[str, typer.Option(help="As torch names it, or auto: a GPU if there is one.")] = "auto",
) -> None:
    """Train and measure the cells of the paper's tables, and say which of their orderings hold."""
    from pixart_sigma.reproduction import plan as plans

    for name in names:
        plans.check(name, seeds)
    if plan:
        print("\n\n".join("\n".join(plans.plan(name, seeds, fast)) for name in names))
        return
    from pixart_sigma.pipeline.placement.launch import announce
    from pixart_sigma.reproduction import run

    # What is made for a smoke test is never taken for a result.
    folder = output / "fast" if fast else output
    for name in names:
        try:
            page = run.reproduce(
                name,
                folder,
                seeds,
                fast,
                lambda line: print(line, file=sys.stderr, flush=True),
                device,
                pocket,
            )
        except Stopped as stopped:
            announce(str(stopped))
            raise typer.Exit(stopped.exit_status) from stopped
        print(page.read_text("utf-8"))
        print(page)
