"""One entry for every kind of training: a recipe and an output folder in, weights in diffusers layout out.

output/checkpoints/step-NNNNNNNN   weights, moving average, optimisers, recipe
output/samples                     validation pictures
output/metrics.jsonl, recipe.toml
output/export                      the parts of a pipeline folder that this kind makes
"""

from __future__ import annotations

from pathlib import Path

from pixart_sigma.allocator import keep_freed_memory
from pixart_sigma.training.recipe import (
    AutoencoderRecipe,
    Recipe,
    TextEncoderRecipe,
    dump_recipe,
    load_recipe,
)


def train(
    recipe: str, output: Path, overrides: list[str] | None = None, resume: bool = False
) -> dict[str, float]:
    """Train what `recipe` (a packaged name or a path) says, and return the closing figures.

    Raises RecipeError for a recipe that breaks a rule, WeightsError for inputs that do not fit it.
    """
    resolved = load_recipe(recipe, overrides)
    # A wrong recipe is reported before torch is imported, which takes seconds.
    from pixart_sigma.training.loop import Task, choose_device, run_loop

    keep_freed_memory()
    device = choose_device(resolved.run.device)
    output.mkdir(parents=True, exist_ok=True)
    (output / "recipe.toml").write_text(dump_recipe(resolved), "utf-8")
    task: Task = _build_task(resolved, output, device)
    return run_loop(task, resolved, output, device, resume)


def _build_task(recipe: Recipe, output: Path, device):  # type: ignore[no-untyped-def]
    if isinstance(recipe, AutoencoderRecipe):
        from pixart_sigma.training.autoencoder import AutoencoderTask

        return AutoencoderTask(recipe, output, device)
    if isinstance(recipe, TextEncoderRecipe):
        from pixart_sigma.training.text_encoder import TextEncoderTask

        return TextEncoderTask(recipe, output, device)
    from pixart_sigma.training.transformer import TransformerTask

    return TransformerTask(recipe, output, device)


def main() -> None:
    """`python -m pixart_sigma.training.run RECIPE --output FOLDER [--set a.b=c] [--resume]`."""
    import argparse

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("recipe")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="a.b=c")
    parser.add_argument("--resume", action="store_true")
    given = parser.parse_args()
    train(given.recipe, given.output, given.overrides, given.resume)


if __name__ == "__main__":
    main()
