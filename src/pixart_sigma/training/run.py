"""One entry for every kind of training: a recipe and an output folder in, weights in diffusers layout out.

output/checkpoints/step-NNNNNNNN   weights, moving average, optimisers, recipe
output/samples                     validation pictures
output/metrics.jsonl, recipe.toml
output/export                      the parts of a pipeline folder that this kind makes
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pixart_sigma.allocator import keep_freed_memory
from pixart_sigma.errors import RecipeError
from pixart_sigma.training.recipe import (
    AutoencoderRecipe,
    Recipe,
    TextEncoderRecipe,
    dump_recipe,
    load_recipe,
)

if TYPE_CHECKING:
    import torch

    from pixart_sigma.training.loop import Task


def train(
    recipe: str, output: Path, overrides: list[str] | None = None, resume: bool = False
) -> dict[str, float]:
    """Train what `recipe` (a packaged name or a path) says, and return the closing figures.

    With `resume` the newest checkpoint under `output/checkpoints` is continued (none: from the start); without it
    an output folder that has checkpoints is an error, so that no run overwrites another. Raises RecipeError for a
    recipe that breaks a rule, WeightsError for inputs that do not fit it.
    """
    resolved = load_recipe(recipe, overrides)
    # A wrong recipe is reported before torch is imported, which takes seconds.
    from pixart_sigma.pipeline.text_to_image import resolve_device
    from pixart_sigma.training.checkpoint import checkpoints
    from pixart_sigma.training.loop import run_loop

    if checkpoints(output / "checkpoints") and not resume:
        raise RecipeError(f"{output} already has checkpoints; add --resume or choose another --output")
    keep_freed_memory()
    device = resolve_device(resolved.run.device)
    output.mkdir(parents=True, exist_ok=True)
    (output / "recipe.toml").write_text(dump_recipe(resolved), "utf-8")
    return run_loop(_build_task(resolved, output, device), resolved, output, device)


def _build_task(recipe: Recipe, output: Path, device: torch.device) -> Task:
    if isinstance(recipe, AutoencoderRecipe):
        from pixart_sigma.training.autoencoder import AutoencoderTask

        return AutoencoderTask(recipe, output, device)
    if isinstance(recipe, TextEncoderRecipe):
        from pixart_sigma.training.text_encoder import TextEncoderTask

        return TextEncoderTask(recipe, output, device)
    from pixart_sigma.training.transformer import TransformerTask

    return TransformerTask(recipe, output, device)
