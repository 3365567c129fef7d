from pathlib import Path

import pytest

from pixart_sigma.errors import RecipeError
from pixart_sigma.training.recipe import (
    AutoencoderRecipe,
    TransformerRecipe,
    dump_recipe,
    load_recipe,
    packaged_recipes,
)

MINIMAL = 'kind = "autoencoder"\n[run]\nsteps = 5\nbatch_size = 2\n[pool]\nnum_scenes = 3\n'


def write(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text, "utf-8")
    return str(path)


def message(recipe: str, overrides: list[str] | None = None) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe, overrides)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_every_packaged_recipe_is_valid() -> None:
    names = packaged_recipes()
    assert {"pocket-autoencoder", "pocket-text-encoder", "pocket-alpha", "pocket-256"} <= set(names)
    for name in names:
        assert load_recipe(name).kind in (
            "autoencoder",
            "text-encoder",
            "caption-reader",
            "checker",
            "image-text",
            "transformer",
        )


def test_a_dumped_recipe_is_the_same_recipe(tmp_path: Path) -> None:
    for name in packaged_recipes():
        recipe = load_recipe(name)
        assert load_recipe(write(tmp_path, dump_recipe(recipe))) == recipe


def test_strings_survive_the_dump(tmp_path: Path) -> None:
    prompts = 'samples.prompts = ["a \\"red\\" house", "ein grüner Baum", "back\\\\slash"]'
    recipe = load_recipe("pocket-alpha", [prompts.replace(" = ", "=")])
    assert isinstance(recipe, TransformerRecipe)
    assert recipe.samples.prompts == ('a "red" house', "ein grüner Baum", "back\\slash")
    assert load_recipe(write(tmp_path, dump_recipe(recipe))) == recipe


def test_overrides_are_toml_and_bare_words_are_strings(tmp_path: Path) -> None:
    recipe = load_recipe(
        write(tmp_path, MINIMAL),
        ["run.steps=7", "optimizer.learning_rate=2e-5", "image_sizes=[64, 96]", "run.precision=fp32"],
    )
    assert isinstance(recipe, AutoencoderRecipe)
    assert recipe.run.steps == 7
    assert recipe.optimizer.learning_rate == 2e-5
    assert recipe.image_sizes == (64, 96)
    assert recipe.run.precision == "fp32"


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("run.stepz=3", "run.stepz"),
        ("run.steps=0", "run.steps"),
        ("run.ema_decay=1.0", "run.ema_decay"),
        ("run.steps", "not of the form"),
        ("kind.of=3", "not a table"),
        ("optimizer.matrix_learning_rate=0.1", "matrix_learning_rate"),
        ("model.norm_num_groups=7", "norm_num_groups 7"),
        ("crop_size=60", "crop_size 60"),
        ("image_sizes=[128, 100]", "multiples of 8, not 100"),
        ("image_sizes=[]", "image_sizes"),
    ],
)
def test_a_broken_rule_is_named_in_one_line(tmp_path: Path, override: str, told: str) -> None:
    assert told in message(write(tmp_path, MINIMAL), [override])


@pytest.mark.parametrize(
    ("name", "override", "told"),
    [
        ("pocket-checker", "model.channels=[60, 128, 160]", "channels 60"),
        ("pocket-checker", "model.num_heads=3", "num_heads 3"),
        ("pocket-checker", "image_sizes=[]", "image_sizes"),
        ("pocket-image-text", "model.text_heads=3", "text_heads 3"),
        ("pocket-image-text", "parallel.strategy=fsdp", "parallel.strategy fsdp"),
    ],
)
def test_a_judge_that_cannot_be_is_refused(name: str, override: str, told: str) -> None:
    assert told in message(name, [override])


def test_what_would_be_ignored_is_refused() -> None:
    assert "timestep_mean" in message(
        "pocket-alpha", ["objective.timesteps=uniform", "objective.timestep_mean=1.0"]
    )


def test_an_unknown_recipe_names_those_there_are() -> None:
    assert "pocket-autoencoder" in message("pocket")


def test_broken_toml_and_unknown_kinds_are_recipe_errors(tmp_path: Path) -> None:
    assert "is not TOML" in message(write(tmp_path, "kind ="))
    assert "kind" in message(write(tmp_path, 'kind = "upscaler"'))


def test_the_operators_are_the_models() -> None:
    from typing import get_args

    from pixart_sigma.model.config import CompressionOperator
    from pixart_sigma.training.recipe import start

    assert get_args(start.CompressionOperator) == get_args(CompressionOperator)
