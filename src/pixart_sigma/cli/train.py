"""`pixart-sigma train`: hands a recipe to the trainer. Knows nothing of what a recipe may say."""

from pathlib import Path
from typing import Annotated

import typer


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe of the package by name, or a TOML file.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for checkpoints, samples and metrics.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Replace a recipe's value, e.g. optimizer.learning_rate=2e-5."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in the folder.")
    ] = False,
) -> None:
    """Train a model from a recipe."""
    from pixart_sigma.training.run import train as run_recipe

    run_recipe(recipe, output, overrides or [], resume)
