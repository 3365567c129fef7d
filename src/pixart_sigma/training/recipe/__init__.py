"""Typed recipes: a TOML file says everything about a training run; the resolved one can be run again."""

from pixart_sigma.training.recipe.kinds import Recipe
from pixart_sigma.training.recipe.load import (
    dump_recipe,
    load_recipe,
    packaged_recipes,
    parse_recipe,
    read_recipe_text,
    recipe_changes,
    recipe_schema,
)
from pixart_sigma.training.recipe.small_models import (
    AutoencoderRecipe,
    CaptionReaderRecipe,
    CheckerRecipe,
    ImageTextRecipe,
    TextEncoderRecipe,
)
from pixart_sigma.training.recipe.transformer import TransformerRecipe

__all__ = [
    "AutoencoderRecipe",
    "CaptionReaderRecipe",
    "CheckerRecipe",
    "ImageTextRecipe",
    "Recipe",
    "TextEncoderRecipe",
    "TransformerRecipe",
    "dump_recipe",
    "load_recipe",
    "packaged_recipes",
    "parse_recipe",
    "read_recipe_text",
    "recipe_changes",
    "recipe_schema",
]
