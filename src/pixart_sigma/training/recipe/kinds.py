"""All kinds of recipes, as one type."""

from pixart_sigma.training.recipe.small_models import (
    AutoencoderRecipe,
    CaptionReaderRecipe,
    CheckerRecipe,
    ImageTextRecipe,
    TextEncoderRecipe,
)
from pixart_sigma.training.recipe.transformer import TransformerRecipe

Recipe = (
    AutoencoderRecipe
    | TextEncoderRecipe
    | CaptionReaderRecipe
    | CheckerRecipe
    | ImageTextRecipe
    | TransformerRecipe
)
