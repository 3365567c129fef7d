"""`pixart-sigma recipes`: what recipes there are, what one says, whether one is right. Runs none."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

recipes = typer.Typer(help="List, show and check training recipes.", no_args_is_help=True)

Named = Annotated[str, typer.Argument(help="A recipe of the package by name, or a TOML file.")]


@recipes.command("list")
def list_recipes() -> None:
    """Name every recipe of the package and say what it is for."""
    from pixart_sigma.training.recipe import packaged_recipes, read_recipe_text

    names = packaged_recipes()
    width = max(map(len, names))
    for name in names:
        print(f"{name:{width}}  {first_comment(read_recipe_text(name))}")


@recipes.command("show")
def show_recipe(recipe: Named) -> None:
    """Print a recipe, to be copied and changed."""
    from pixart_sigma.training.recipe import read_recipe_text

    print(read_recipe_text(recipe), end="")


@recipes.command("check")
def check_recipe(
    recipe: Named,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Replace a value, e.g. run.batch_size=64."),
    ] = None,
) -> None:
    """Say what a recipe would do, and what it needs that is not there yet.

    Exit status: 2 if it breaks a rule, 0 otherwise.
    """
    from pixart_sigma.training.recipe import load_recipe
    from pixart_sigma.training.recipe.describe import describe, missing

    resolved = load_recipe(recipe, overrides)
    for line in describe(resolved):
        print(line)
    for name in missing(resolved):
        print(f"warning: {name} is not there yet", file=sys.stderr)


@recipes.command("schema")
def write_schema(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file instead of the terminal.")
    ] = None,
) -> None:
    """Print the JSON schema of recipes, for editors that complete and check TOML."""
    from pixart_sigma.training.recipe import recipe_schema
    from pixart_sigma.weights.atomic import check_writable, written_whole

    text = json.dumps(recipe_schema(), indent=2, ensure_ascii=False) + "\n"
    if output is None:
        print(text, end="")
        return
    check_writable(output)
    with written_whole(output) as temporary:
        temporary.write_text(text, "utf-8")


def first_comment(text: str) -> str:
    """The comment in a TOML file's first line, or nothing."""
    line = text.partition("\n")[0]
    return line.removeprefix("#").strip() if line.startswith("#") else ""
