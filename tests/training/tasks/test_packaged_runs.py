"""One step of every packaged recipe for the transformer, with its own settings, on tiny models and pictures."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pixart_sigma.training.recipe import TransformerRecipe, load_recipe, packaged_recipes
from pixart_sigma.training.run import train
from pixart_sigma.training.watching.metrics import read_metrics
from tiny_run import overrides, write_pictures

NAMES = [name for name in packaged_recipes() if load_recipe(name).kind == "transformer"]
ONE_STEP: dict[str, Any] = {
    "run.steps": 1,
    "run.batch_size": 2,
    "run.accumulate": 1,
    "run.device": "cpu",
    "run.compile": False,
    "run.trackers": [],
    "data.partial_batches": "wrap",
    "samples.prompts": ["a red house"],
    "samples.num_steps": 1,
}


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layout of the official trainer."""
    root = tmp_path_factory.mktemp("official")
    write_pictures(root / "InternImgs", 4)
    entries = [
        {
            "path": f"{index:02d}.png",
            "width": 40,
            "height": 40,
            "ratio": 1.0,
            "prompt": "a red house",
            "sharegpt4v": "a big red house by the lake",
        }
        for index in range(4)
    ]
    (root / "InternData").mkdir()
    (root / "InternData/data_info.json").write_text(json.dumps(entries), "utf-8")
    return root


@pytest.fixture(scope="module")
def velocity(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny pipeline, said to predict velocity, as the pocket model does."""
    folder = tmp_path_factory.mktemp("velocity") / "tiny"
    shutil.copytree(tiny_folder, folder)
    path = folder / "scheduler/scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prediction_type": "v_prediction"}))
    return folder


def small(recipe: TransformerRecipe, tiny: Path, pictures: Path, official: Path) -> dict[str, Any]:
    """What stands between a recipe and a step of a second: models, pictures, and 256 px instead of up to 4K."""
    settings = dict(ONE_STEP)
    for index, source in enumerate(recipe.data.sources):
        if source.folder is not None:
            settings[f"data.sources.{index}.folder"] = str(pictures)
        elif source.pixart is not None:
            settings[f"data.sources.{index}.pixart"] = str(official)
        elif source.drawn is not None:
            settings[f"data.sources.{index}.drawn.num_scenes"] = 2
        if source.resolution is not None:
            settings[f"data.sources.{index}.resolution"] = 128 + 32 * index
    if recipe.data.validation is not None:
        settings["data.validation.drawn.num_scenes"] = 1
    if recipe.data.class_images is not None:
        settings |= {"data.class_images.num": 1, "data.class_images.num_steps": 1}
    if recipe.scratch is not None:
        return settings | {"scratch.autoencoder": str(tiny), "scratch.text_encoder": str(tiny)}
    assert recipe.start is not None
    settings["start.model"] = str(tiny)
    settings |= {} if recipe.start.components is None else {"start.components": str(tiny)}
    settings |= {} if recipe.export.blend is None else {"export.blend.model": str(tiny)}
    settings |= {} if recipe.start.vae is None else {"start.vae": str(tiny)}
    settings |= {} if recipe.start.text_encoder is None else {"start.text_encoder": str(tiny)}
    settings |= {} if recipe.start.resolution is None else {"start.resolution": 256}
    return settings


@pytest.mark.parametrize("name", NAMES)
def test_one_step(
    name: str, tiny_folder: Path, velocity: Path, pictures: Path, official: Path, tmp_path: Path
) -> None:
    recipe = load_recipe(name)
    assert isinstance(recipe, TransformerRecipe)
    tiny = velocity if recipe.objective.prediction_type == "v_prediction" else tiny_folder
    train(name, tmp_path, overrides(small(recipe, tiny, pictures, official)))
    (step,) = [line for line in read_metrics(tmp_path / "metrics.jsonl") if "loss" in line]
    assert 0 < step["loss"] < 10
    weights = "adapter_model.safetensors" if recipe.lora else "model_index.json"
    assert (tmp_path / "export" / weights).exists()
