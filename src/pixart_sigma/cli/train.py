"""`pixart-sigma train`: hands a recipe to the trainer, or to the planner, here or in several processes.

Knows nothing of what a recipe may say. What can be refused cheaply is refused before torch is imported.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from pixart_sigma.cli.several import check_processes, same_command
from pixart_sigma.errors import InvalidInput, RecipeError, Stopped

DEFAULT_GPUS = 1
DEFAULT_GPU_TYPE = "a100-80g"


def train(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(help="A recipe of the package by name, or a TOML file.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder for checkpoints, samples, metrics and the export. Needed unless --plan.",
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Replace a recipe's value, e.g. optimizer.learning_rate=2e-5."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in the folder.")
    ] = False,
    allow_changed: Annotated[
        bool, typer.Option("--allow-changed", help="Resume although the recipe is no longer the same.")
    ] = False,
    nproc_per_node: Annotated[
        int | None,
        typer.Option(metavar="N", help="Processes on this machine, one a GPU. Several machines: torchrun."),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print what the run would need and cost, and do no work.")
    ] = False,
    gpus: Annotated[
        int | None, typer.Option(metavar="N", help=f"With --plan: how many. Default: {DEFAULT_GPUS}.")
    ] = None,
    gpu_type: Annotated[
        str | None, typer.Option(metavar="NAME", help=f"With --plan. Default: {DEFAULT_GPU_TYPE}.")
    ] = None,
    efficiency: Annotated[
        float | None,
        typer.Option(metavar="X", help="With --plan: the share of the GPU's published rate that is reached."),
    ] = None,
) -> None:
    """Train a model from a recipe.

    Exit status: 0 when done, 2 for bad input. SIGTERM ends a run with 143, Ctrl-C (SIGINT) with 130, after a
    complete checkpoint from which --resume goes on.
    """
    if plan:
        made_idle = {
            "--output": output,
            "--resume": resume,
            "--allow-changed": allow_changed,
            "--nproc-per-node": nproc_per_node,
        }
        _refuse_ignored(made_idle, "with --plan, which does no work")
        _plan(recipe, overrides or [], gpus, gpu_type, efficiency)
        return
    _refuse_ignored({"--gpus": gpus, "--gpu-type": gpu_type, "--efficiency": efficiency}, "without --plan")
    if not resume:
        _refuse_ignored({"--allow-changed": allow_changed}, "without --resume")
    if output is None:
        raise InvalidInput("Missing option '--output' / '-o'; see pixart-sigma --help")
    if nproc_per_node is not None:
        check_processes(nproc_per_node)
    if nproc_per_node is None or nproc_per_node == 1:
        _train(recipe, output, overrides or [], resume, allow_changed)
    else:
        _launch(context, nproc_per_node, recipe, overrides or [])


def _refuse_ignored(options: Mapping[str, object], why: str) -> None:
    for name, value in options.items():
        if value is not None and value is not False:
            raise InvalidInput(f"{name} is ignored {why}; remove it")


def _plan(
    recipe: str, overrides: list[str], gpus: int | None, gpu_type: str | None, efficiency: float | None
) -> None:
    from pixart_sigma.training.recipe import TransformerRecipe, load_recipe

    resolved = load_recipe(recipe, overrides)
    if not isinstance(resolved, TransformerRecipe):
        raise InvalidInput(
            f"--plan is for transformers; recipe {recipe!r} trains another kind ({resolved.kind})"
        )
    from pixart_sigma.training.plan.recipe import plan_recipe

    gpus = DEFAULT_GPUS if gpus is None else gpus
    print(plan_recipe(resolved, gpus, gpu_type or DEFAULT_GPU_TYPE, efficiency))


def _train(recipe: str, output: Path, overrides: list[str], resume: bool, allow_changed: bool) -> None:
    from pixart_sigma.pipeline.placement.launch import announce
    from pixart_sigma.training.run import train as run_recipe

    try:
        run_recipe(recipe, output, overrides, resume, allow_changed)
    except Stopped as stopped:
        announce(str(stopped))
        raise typer.Exit(stopped.exit_status) from stopped


def _launch(context: typer.Context, nproc: int, recipe: str, overrides: list[str]) -> None:
    """The same command in nproc processes, once its recipe has been checked here."""
    from pixart_sigma.pipeline.placement.launch import launch
    from pixart_sigma.training.recipe import load_recipe
    from pixart_sigma.training.recipe.process import microbatch

    run = load_recipe(recipe, overrides).run
    try:
        microbatch(run, nproc)
    except ValueError as error:
        raise RecipeError(f"recipe {recipe!r}: {error}") from error
    arguments = same_command(context, {"nproc_per_node"})
    raise typer.Exit(launch(nproc, arguments, remedy="go on from the last checkpoint with --resume"))
