"""Plans of recipes, from configuration files alone."""

from pathlib import Path

import pytest

from pixart_sigma.errors import InvalidInput
from pixart_sigma.training.plan.recipe import plan_recipe
from pixart_sigma.training.recipe import TransformerRecipe, load_recipe


def planned(name: str, *overrides: str, gpus: int = 16, gpu: str = "a100-80g") -> str:
    recipe = load_recipe(name, list(overrides))
    assert isinstance(recipe, TransformerRecipe)
    return plan_recipe(recipe, gpus, gpu, None)


def test_a_model_that_is_not_there_is_taken_to_be_xl_2() -> None:
    text = planned("sigma-1024-kv", gpus=32)
    assert "parameters      610,968,992" in text
    assert "sigma-1024 is not there yet" in text


def test_the_pocket_model_is_read_from_its_files() -> None:
    text = planned("pocket-lora", gpus=1)
    assert "256x256 px" in text
    assert "not there yet" not in text


def test_encoders_of_other_models_are_looked_for(tiny_folder: Path) -> None:
    start = f"start.model={tiny_folder}"
    text = planned("pocket-binding", start, gpus=1)
    assert "runs/reader/export is not there yet: T5-XXL is assumed" in text
    there = planned("pocket-binding", start, "start.text_encoder=pocket", "start.vae=pocket", gpus=1)
    assert "not there yet" not in there
    assert "runs/other is not there yet: the released" in planned(
        "pocket-mixed", start, "start.vae=runs/other", gpus=1
    )


def test_features_that_are_not_cached_cost_their_encoders() -> None:
    cached = planned("sigma-512", gpus=32)
    online = planned("sigma-512", "data.embeddings=online", "data.latents=online", gpus=32)
    assert cached.count("encoders                         0.00") == 2
    assert online.count("encoders                         0.00") == 0


def test_an_adapter_trains_few_weights() -> None:
    assert "of them trained" in planned("sigma-512-lora", gpus=1)


def test_a_fresh_model_is_the_recipes(tiny_folder: Path) -> None:
    encoders = [f"scratch.autoencoder={tiny_folder}", f"scratch.text_encoder={tiny_folder}"]
    small = planned("pocket-alpha", *encoders, gpus=1)
    smaller = planned("pocket-alpha", *encoders, "scratch.num_layers=2", gpus=1)
    assert small.splitlines()[1] != smaller.splitlines()[1]


def test_a_batch_that_cannot_be_dealt_is_refused() -> None:
    with pytest.raises(InvalidInput, match="nearest"):
        planned("sigma-512-lora", gpus=3)


def test_of_several_sizes_the_largest_is_counted() -> None:
    text = planned("pocket-512", gpus=1)
    assert "512x512 px" in text
    assert "all steps are counted at 512 px; those at 256 px take less" in text
    assert "take less" not in planned("pocket-256", gpus=1)
