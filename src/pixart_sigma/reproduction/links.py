"""The links of the pocket model's making: their recipes, wherever their folders are, and small for a smoke test.

Knows nothing of training.
"""

from __future__ import annotations

import json
from pathlib import Path

from pixart_sigma.reproduction.scale import Scale
from pixart_sigma.resolution import LATENT_SCALE, TOKEN_SIDE
from pixart_sigma.training.recipe import Recipe, TransformerRecipe, load_recipe
from pixart_sigma.training.recipe.describe import inputs

LINKS = (
    "alpha-autoencoder",
    "text-encoder",
    "alpha",
    "autoencoder",
    "vae-swap",
    "captions",
    "256",
    "512",
    "1024",
    "mixed",
    "reader",
    "binding",
)
"""In the order in which they are made."""
_SMALLEST_SIDE = 2 * TOKEN_SIDE
_FAST_DIVISOR = 8


def link_recipe(link: str) -> str:
    """The packaged recipe's name."""
    return f"pocket-{link}"


def shrunk(link: str, scale: Scale) -> list[str]:
    """Overrides for a smoke test: few steps on few small pictures."""
    recipe = load_recipe(link_recipe(link))
    overrides = ["run.steps=2", *scale.shrink.get(recipe.kind, ())]
    if not isinstance(recipe, TransformerRecipe):
        return overrides
    overrides += ["run.batch_size=2", "run.accumulate=1", 'data.buckets="square"']
    for index, source in enumerate(recipe.data.sources):
        overrides.append(f"data.sources.{index}.drawn.num_scenes=2")
        if source.resolution is not None:
            overrides.append(f"data.sources.{index}.resolution={_shrunk_side(source.resolution)}")
    side = _shrunk_side(recipe.resolution or _SMALLEST_SIDE)
    if recipe.scratch is not None:
        return [*overrides, *scale.shrink.get("scratch", ()), f"scratch.sample_size={side // LATENT_SCALE}"]
    return [*overrides, f"start.resolution={side}"]


def link_overrides(recipe: Recipe, output: Path) -> list[str]:
    """The recipe's `runs/LINK/export` → `output/LINK/export`, as overrides."""
    overrides = []
    for key, path in inputs(recipe):
        if path.parts[:1] == ("runs",):
            place = output.joinpath(*path.parts[1:])
            overrides.append(f"{key}={json.dumps(str(place))}")
    return overrides


def _shrunk_side(side: int) -> int:
    return max(side // _FAST_DIVISOR, _SMALLEST_SIDE)
