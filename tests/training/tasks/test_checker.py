from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pixart_sigma.evaluation.judges.checker import Checker, CheckerConfig, load_checker, read
from pixart_sigma.evaluation.judges.labels import ANSWERS, truth_labels
from pixart_sigma.training.run import train
from pixart_sigma.training.tasks.checker import CheckerObjective, LabelledPictures, scene_of, verdicts
from pixart_sigma.world.scene import KINDS, sample_scene
from tiny_run import stored

RUN = [
    "run.steps=2",
    "run.batch_size=4",
    "run.device=cpu",
    "run.precision=fp32",
    "run.checkpoint_every=1",
    "rate.warmup_steps=1",
    "image_sizes=[32, 64]",
    "pool.num_scenes=3",
    "pool.num_validation=2",
    "model.channels=[8, 8, 8]",
    "model.blocks=[1, 1, 1]",
    "model.num_heads=2",
]
SCENES = [sample_scene(seed, all_pairs=True) for seed in range(40)]


def sure(labels: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Logits that say what the labels say."""
    return {
        name: 10.0 * F.one_hot(column.clamp(min=0), len(ANSWERS[name])) for name, column in labels.items()
    }


def test_scenes_are_made_of_their_truth_again() -> None:
    assert [scene_of(scene.truth()) for scene in SCENES] == SCENES


def test_the_truth_is_right() -> None:
    labels = truth_labels(SCENES)
    right, asked = verdicts(sure(labels), labels)
    for name in right:
        assert right[name][asked[name]].all()
        assert asked[name].any()
    # A kind that is not there has nothing to be right about.
    assert asked["count"].sum() == asked["colour"].sum() == sum(len(scene.things) for scene in SCENES)


def test_a_kind_too_many_is_a_mistake_of_its_own() -> None:
    labels = truth_labels(SCENES)
    logits = sure(labels)
    absent = next(index for index, kind in enumerate(KINDS) if labels["count"][0, index] == 0)
    logits["count"][0, absent, 1] = 20
    right, asked = verdicts(logits, labels)
    assert right["kinds"].tolist() == [False] + [True] * (len(SCENES) - 1)
    assert right["count"][asked["count"]].all()


class Fixed(torch.nn.Module):
    def __init__(self, logits: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.logits


def test_the_loss_is_that_of_the_pictures_and_sees_every_attribute() -> None:
    labels = truth_labels(SCENES)
    pixels = torch.zeros(len(SCENES), 3, 1, 1)
    batch = LabelledPictures(pixels, labels, 1 / len(SCENES))
    terms = CheckerObjective(Fixed(sure(labels)))(batch)
    assert terms["loss"] < 1e-2
    assert terms["flawless"] == pytest.approx(1)
    for name in labels:
        wrong = sure(labels)
        wrong[name] = wrong[name].roll(1, -1)
        terms = CheckerObjective(Fixed(wrong))(batch)
        assert terms["loss"] > 0.05, name
        assert terms["flawless"] < 1, name


def test_it_learns_colours_from_coloured_pictures() -> None:
    torch.manual_seed(0)
    scenes = [scene for scene in (sample_scene(seed) for seed in range(600)) if scene.layout == "single"][:32]
    labels = truth_labels(scenes)
    colours = labels["colour"].amax(1)
    palette = torch.rand(10, 3) * 2 - 1
    pixels = palette[colours][:, :, None, None].expand(-1, 3, 128, 128)
    checker = Checker(CheckerConfig(channels=(8, 8, 16), blocks=(0, 0, 1), num_heads=2))
    objective = CheckerObjective(checker)
    optimizer = torch.optim.AdamW(checker.parameters(), 1e-2)
    for _ in range(60):
        loss = objective(LabelledPictures(pixels, labels, 1 / len(scenes)))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    right, asked = verdicts(checker(pixels), labels)
    assert right["colour"][asked["colour"]].float().mean() > 0.9


def test_training_exports_a_checker_and_repeats_exactly(tmp_path: Path) -> None:
    closing = train("pocket-checker", tmp_path / "whole", RUN)
    assert {"attributes", "kinds", *ANSWERS} <= closing.keys()
    assert all(0 <= closing[name] <= 1 for name in ANSWERS)
    loaded = load_checker(tmp_path / "whole/export/checker.safetensors")
    assert len(read(loaded, np.zeros((2, 64, 96, 3), dtype=np.uint8))) == 2
    folders = {path.name for path in (tmp_path / "whole/pools").iterdir()}
    assert folders == {f"judges-{use}-{size}" for use in ("training", "validation") for size in (32, 64)}

    train("pocket-checker", tmp_path / "again", [*RUN, f"pool.folder={tmp_path / 'whole/pools'}"])
    whole, again = stored(tmp_path / "whole"), stored(tmp_path / "again")
    assert all(torch.equal(whole[name], again[name]) for name in whole)
