"""Stages as folders: each is trained once, goes on where it was killed, and is not trained again.

    output/tables/…                    records of a resolution and a set of scenes, with cached features
    output/stages/NAME-KEY/            a training's folder, as `train` makes it
    output/stages/NAME-KEY/export-N    what it had become after N steps

The key is a digest of all that decides what comes out, so that cells and studies share a stage without knowing of one
another, and a change anywhere makes a new one. Knows nothing of what is measured.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from pixart_sigma.data.drawn import world_fingerprint
from pixart_sigma.errors import PixArtSigmaError
from pixart_sigma.reproduction.results import Cost
from pixart_sigma.reproduction.study import Stage, Trained
from pixart_sigma.training.recipe import TransformerRecipe, load_recipe, read_recipe_text
from pixart_sigma.training.watching.metrics import read_metrics
from pixart_sigma.weights.digests import autoencoder_digest, text_encoder_digest
from pixart_sigma.weights.folder import POCKET, find_pipeline, read_json

METRICS_FILE = "metrics.jsonl"
_HELD_OUT = "validation_mse"


@dataclass(frozen=True)
class Workshop:
    """Where stages are trained, and what all of them stand on: the pocket model's encoders, and a digest of these and
    of the drawn world.
    """

    output: Path
    pocket: Path
    ground: str


def open_workshop(output: Path, pocket: str | Path = POCKET) -> Workshop:
    """The folder is made. Raises WeightsError if the pocket model is not there."""
    output.mkdir(parents=True, exist_ok=True)
    folder = find_pipeline(pocket)["transformer"]
    scaling_factor = read_json(folder / "vae" / "config.json").get("scaling_factor")
    parts = [
        autoencoder_digest(folder),
        scaling_factor,
        text_encoder_digest(folder),
        world_fingerprint(0),
    ]
    return Workshop(output.resolve(), folder.resolve(), short_digest(parts))


def short_digest(content: Any) -> str:
    """JSON types → ten hexadecimal digits."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=5).hexdigest()


def stage_key(workshop: Workshop, stage: Stage, seed: int) -> str:
    """A digest of the recipe's text, overrides, lengths, seed, and the keys of the stages that it starts from."""
    inputs = [
        [name, None if given is None else [stage_key(workshop, given.stage, seed), given.steps]]
        for name, given in stage.inputs
    ]
    own = [read_recipe_text(stage.recipe), list(stage.overrides), list(stage.lengths), _seed(stage, seed)]
    return short_digest([workshop.ground, own, inputs])


def stage_folder(workshop: Workshop, stage: Stage, seed: int) -> Path:
    """Where the stage is trained."""
    return workshop.output / "stages" / f"{stage.name}-{stage_key(workshop, stage, seed)}"


def export_folder(workshop: Workshop, trained: Trained, seed: int) -> Path:
    """The pipeline's (or the autoencoder's) folder."""
    return stage_folder(workshop, trained.stage, seed) / f"export-{trained.steps}"


def stage_overrides(workshop: Workshop, stage: Stage, seed: int) -> list[str]:
    """All overrides of the stage's recipe but the number of steps."""
    overrides = [*stage.overrides, f"run.seed={_seed(stage, seed)}"]
    for name, given in stage.inputs:
        folder = workshop.pocket if given is None else export_folder(workshop, given, seed)
        overrides.append(f"{name}={json.dumps(str(folder))}")
    recipe = load_recipe(stage.recipe, overrides)
    if isinstance(recipe, TransformerRecipe):
        records = recipe.data.model_dump(mode="json", include={"sources", "validation", "buckets"})
        tables = workshop.output / "tables" / f"{recipe.resolution}px-{short_digest(records)}"
        # Relative, so that the whole output folder can be moved.
        relative = os.path.relpath(tables, stage_folder(workshop, stage, seed))
        overrides.append(f"data.folder={json.dumps(relative)}")
    return overrides


def train_stage(workshop: Workshop, stage: Stage, seed: int, device: str) -> bool:
    """Train what is missing of the stage's lengths → whether anything was. What it starts from must be there.

    Raises Stopped after a signal, with a checkpoint from which the next call goes on.
    """
    missing = [
        steps for steps in stage.lengths if not export_folder(workshop, Trained(stage, steps), seed).is_dir()
    ]
    folder = stage_folder(workshop, stage, seed)
    overrides = [*stage_overrides(workshop, stage, seed), f"run.device={json.dumps(device)}"]
    for steps in missing:
        _train_to(folder, stage.recipe, overrides, steps)
        (folder / "export").rename(folder / f"export-{steps}")
    # A finished stage needs none, and they are the larger part of its folder.
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return bool(missing)


def _train_to(folder: Path, recipe: str, overrides: list[str], steps: int) -> None:
    from pixart_sigma.training.checkpoint import finished_checkpoints
    from pixart_sigma.training.run import train

    found = finished_checkpoints(folder / "checkpoints")
    if found and int(found[-1].name.removeprefix("step-")) > steps:
        raise PixArtSigmaError(
            f"{folder} has gone beyond step {steps}, whose export is gone; delete the folder, and it is trained again"
        )
    # The folder's name stands for the recipe, so that nothing but the number of steps can have changed.
    train(recipe, folder, [*overrides, f"run.steps={steps}"], resume=True, allow_changed=True)


def stage_cost(workshop: Workshop, trained: Trained, seed: int) -> Cost:
    """What it took up to there, without what it started from."""
    records = _records(workshop, trained, seed)
    samples = trained.steps * _batch_size(trained.stage)
    return Cost(max((record["seconds"] for record in records), default=0.0), samples)


def cost_from_scratch(workshop: Workshop, trained: Trained, seed: int) -> Cost:
    """What it took with all that it started from; a stage that all seeds share counts for the first one."""
    shared = seed > 0 and not trained.stage.seeded
    total = Cost(0.0, 0) if shared else stage_cost(workshop, trained, seed)
    for _, given in trained.stage.inputs:
        if given is not None:
            total += cost_from_scratch(workshop, given, seed)
    return total


def seconds_per_step(workshop: Workshop, trained: Trained, seed: int) -> float:
    """The median over the records of the training up to there."""
    speeds = [
        record["samples_per_second"]
        for record in _records(workshop, trained, seed)
        if record.get("samples_per_second")
    ]
    return _batch_size(trained.stage) / median(speeds) if speeds else float("nan")


def held_out_error(workshop: Workshop, trained: Trained, seed: int) -> float:
    """That of the export, which every length ends with."""
    errors = [
        record[_HELD_OUT]
        for record in _records(workshop, trained, seed)
        if record["step"] == trained.steps and record.get(_HELD_OUT) is not None
    ]
    return errors[-1] if errors else float("nan")


def _records(workshop: Workshop, trained: Trained, seed: int) -> list[dict[str, Any]]:
    path = stage_folder(workshop, trained.stage, seed) / METRICS_FILE
    return [record for record in read_metrics(path) if record["step"] <= trained.steps]


def _batch_size(stage: Stage) -> int:
    return load_recipe(stage.recipe, list(stage.overrides)).run.batch_size


def _seed(stage: Stage, seed: int) -> int:
    return seed if stage.seeded else 0
