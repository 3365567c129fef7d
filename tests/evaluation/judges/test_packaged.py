"""The judges in the package: small, and right on scenes that they have not seen."""

import numpy as np
import pytest
import torch

from pixart_sigma.evaluation.judges.backbone import judge_pixels
from pixart_sigma.evaluation.judges.checker import load_checker
from pixart_sigma.evaluation.judges.file import judge_file
from pixart_sigma.evaluation.judges.image_text import load_image_text
from pixart_sigma.evaluation.judges.labels import UNASKED, truth_labels
from pixart_sigma.world import Scene, render, sample_scene, short_caption

UNSEEN_SEED = 5 * 10**9
SCENES = [sample_scene(UNSEEN_SEED + index, all_pairs=True) for index in range(32)]


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.stack([render(scene, 128, 128) for scene in SCENES])


def test_they_are_small_and_have_a_card() -> None:
    folder = judge_file("README.md").parent
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 8e6
    assert judge_file("README.md").is_file()


def right(scenes: list[Scene], pictures: np.ndarray) -> dict[str, float]:
    """The share of each attribute that the checker reads right."""
    labels = truth_labels(scenes)
    with torch.inference_mode():
        logits = load_checker()(judge_pixels(pictures))
    shares = {}
    for name, truth in labels.items():
        stated = truth != UNASKED
        shares[name] = float((logits[name].argmax(-1) == truth)[stated].float().mean())
    return shares


def test_the_checker_reads_unseen_scenes(pictures: np.ndarray) -> None:
    shares = right(SCENES, pictures)
    # Flat drawings and pixel art are hard to tell apart at 128 px.
    assert shares.pop("style") >= 0.7
    assert min(shares.values()) >= 0.97


def test_pictures_are_nearest_to_their_own_captions(pictures: np.ndarray) -> None:
    judge = load_image_text()
    cosines = judge.embed_images(pictures) @ judge.embed_texts([short_caption(scene) for scene in SCENES]).T
    assert float((cosines.argmax(1) == torch.arange(len(SCENES))).float().mean()) >= 0.5
