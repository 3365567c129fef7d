"""One entry for every kind of training: a recipe and an output folder in, weights in diffusers layout out.

output/recipe.toml       the resolved recipe
output/tables            records made of the recipe's sources, with cached features
output/surgery.jsonl     what was done to the starting model, every tensor a line
output/checkpoints       step-NNNNNNNN: weights, moving average, optimisers, recipe
output/samples           validation pictures
output/metrics.jsonl, tensorboard, report.html
output/export            a pipeline's folder, or an adapter's
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pixart_sigma.allocator import keep_freed_memory
from pixart_sigma.errors import RecipeError
from pixart_sigma.training.recipe import (
    AutoencoderRecipe,
    CaptionReaderRecipe,
    CheckerRecipe,
    ImageTextRecipe,
    Recipe,
    TextEncoderRecipe,
    dump_recipe,
    load_recipe,
    recipe_changes,
)
from pixart_sigma.training.recipe.process import check_groups, microbatch
from pixart_sigma.weights.atomic import written_whole

if TYPE_CHECKING:
    from pixart_sigma.pipeline.placement.processes import Processes
    from pixart_sigma.training.loop import Task


def train(
    recipe: str,
    output: Path,
    overrides: list[str] | None = None,
    resume: bool = False,
    allow_changed: bool = False,
) -> dict[str, float]:
    """Train what `recipe` (a packaged name or a path) says, and return the closing figures.

    With `resume` the newest checkpoint under `output/checkpoints` is continued (none: from the start); without it
    an output folder that has checkpoints is an error, so that no run overwrites another. A resumed run's recipe must
    be that of its checkpoint unless `allow_changed`. Started by torchrun, this is one of its processes.
    Raises RecipeError for a recipe that breaks a rule, WeightsError for inputs that do not fit it, Stopped when a
    signal ended the run.
    """
    resolved = load_recipe(recipe, overrides)
    # A wrong recipe is reported before torch is imported, which takes seconds.
    from pixart_sigma.pipeline.placement.processes import joined
    from pixart_sigma.training.checkpoint import finished_checkpoints
    from pixart_sigma.training.loop import run_loop

    found = finished_checkpoints(output / "checkpoints")
    if found and not resume:
        raise RecipeError(f"{output} already has checkpoints; add --resume or choose another --output")
    if found and not allow_changed:
        _check_unchanged(found[-1] / "recipe.toml", resolved)
    keep_freed_memory()
    with joined(resolved.run.device) as processes:
        try:
            microbatch(resolved.run, processes.world)
            check_groups(resolved.parallel, processes.world)
        except ValueError as error:
            raise RecipeError(str(error)) from error
        if processes.first:
            output.mkdir(parents=True, exist_ok=True)
            with written_whole(output / "recipe.toml") as temporary:
                temporary.write_text(dump_recipe(resolved), "utf-8")
        task = _build_task(resolved, output, processes)
        return run_loop(task, resolved, output, processes, allow_changed)


def _check_unchanged(path: Path, recipe: Recipe) -> None:
    changes = recipe_changes(load_recipe(str(path)), recipe)
    if changes:
        raise RecipeError(
            f"the recipe is not that of the checkpoint {path.parent.name}: {'; '.join(changes)}; undo that, or add "
            "--allow-changed"
        )


def _build_task(recipe: Recipe, output: Path, processes: Processes) -> Task:
    if isinstance(recipe, AutoencoderRecipe):
        from pixart_sigma.training.tasks.autoencoder import AutoencoderTask

        return AutoencoderTask(recipe, output, processes)
    if isinstance(recipe, TextEncoderRecipe):
        from pixart_sigma.training.tasks.text_encoder import TextEncoderTask

        return TextEncoderTask(recipe, output, processes)
    if isinstance(recipe, CaptionReaderRecipe):
        from pixart_sigma.training.tasks.caption_reader import CaptionReaderTask

        return CaptionReaderTask(recipe, output, processes)
    if isinstance(recipe, CheckerRecipe):
        from pixart_sigma.training.tasks.checker import CheckerTask

        return CheckerTask(recipe, output, processes)
    if isinstance(recipe, ImageTextRecipe):
        from pixart_sigma.training.tasks.image_text import ImageTextTask

        return ImageTextTask(recipe, output, processes)
    from pixart_sigma.training.tasks.transformer import TransformerTask

    return TransformerTask(recipe, output, processes)
