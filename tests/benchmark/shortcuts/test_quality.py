from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fake_judges import PROMPTS, SIDE, FakeExtractor
from pixart_sigma.benchmark.shortcuts.quality import change, find_jury, judged, likeness
from pixart_sigma.evaluation.metrics.fid import frechet_distance, gaussian_statistics
from pixart_sigma.evaluation.pictures import picture_file
from pixart_sigma.evaluation.prompts import Prompt
from pixart_sigma.world import render

CPU = torch.device("cpu")


def draw(folder: Path, noisy: int = 0) -> Path:
    """What the prompts ask for, but for the first few."""
    for index, prompt in enumerate(PROMPTS):
        assert prompt.scene is not None
        pixels = render(prompt.scene, SIDE, SIDE)
        path = picture_file(folder, prompt)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 - pixels if index < noisy else pixels).save(path)
    return folder


def flat(folder: Path, values: list[int]) -> tuple[Prompt, ...]:
    prompts = tuple(Prompt(str(index), "a", "prompts", index) for index in range(len(values)))
    for prompt, value in zip(prompts, values, strict=True):
        path = picture_file(folder, prompt)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 16, 3), value, np.uint8)).save(path)
    return prompts


@pytest.mark.usefixtures("fake_jury")
def test_judges_tell_right_pictures_from_wrong_ones(tmp_path: Path) -> None:
    jury = find_jury("pocket", tmp_path, (SIDE, SIDE), CPU, 8)
    good, all_right = judged(draw(tmp_path / "good"), PROMPTS, jury)
    worse, right = judged(draw(tmp_path / "worse", noisy=5), PROMPTS, jury)
    assert good["adherence"]["estimate"] == 1
    assert worse["adherence"]["estimate"] == pytest.approx(1 - 5 / len(PROMPTS))
    assert worse["adherence"]["low"] < worse["adherence"]["estimate"] < worse["adherence"]["high"]
    features = FakeExtractor().features(
        np.stack([np.asarray(Image.open(picture_file(tmp_path / "worse", prompt))) for prompt in PROMPTS])
    )
    expected = frechet_distance(gaussian_statistics([features]), jury.reference.statistics)
    assert worse["fid"] == pytest.approx(expected)
    assert worse["fid"] != good["fid"]
    assert right == [0.0] * 5 + [1.0] * (len(PROMPTS) - 5)
    found = change(right, all_right)["adherence_change"]
    assert found["estimate"] == pytest.approx(-5 / len(PROMPTS))
    assert change(right, right)["adherence_change"] == {"estimate": 0, "low": 0, "high": 0}


@pytest.mark.usefixtures("fake_jury")
def test_of_one_picture_there_is_no_fid(tmp_path: Path) -> None:
    jury = find_jury("pocket", tmp_path, (SIDE, SIDE), CPU, 8)
    quality, right = judged(draw(tmp_path / "good"), PROMPTS[:1], jury)
    assert right == [1.0]
    assert quality.keys() == {"adherence"}


def test_likeness_is_the_mean_over_pictures(tmp_path: Path) -> None:
    prompts = flat(tmp_path / "exact", [0, 0, 0])
    flat(tmp_path / "lossy", [0, 255, 51])
    found = likeness(tmp_path / "lossy", tmp_path / "exact", prompts)
    assert found["psnr"]["estimate"] == pytest.approx((0 + 20 * np.log10(5)) / 2)  # of those that differ
    assert found["equal"] == 1
    c1 = 2.55**2
    expected = np.mean([1, c1 / (255**2 + c1), c1 / (51**2 + c1)])
    assert found["ssim"]["estimate"] == pytest.approx(expected)
    same = likeness(tmp_path / "exact", tmp_path / "exact", prompts)
    assert same["psnr"] is None
    assert same["equal"] == 3
    assert same["ssim"]["estimate"] == pytest.approx(1)
