import shutil
from pathlib import Path

import pytest

from fake_judges import FakeExtractor
from pixart_sigma.reproduction import measure as module
from pixart_sigma.reproduction.measure import measure, prompts_of, shared_reference
from pixart_sigma.reproduction.metric import (
    ADHERENCE,
    ATTRIBUTES,
    CLIP_SCORE,
    CMMD,
    DENSE_ATTRIBUTES,
    DENSE_CLIP_SCORE,
    FID,
)
from pixart_sigma.reproduction.scale import FAST


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch, fake_judges: None, tmp_path: Path) -> Path:
    monkeypatch.setattr(module, "extractor", lambda choice, device: FakeExtractor(device))
    return shared_reference(tmp_path, FAST, "auto")


def test_sets_of_prompts_have_their_own_names(tiny_folder: Path, tmp_path: Path, reference: Path) -> None:
    output = tmp_path / "measured"
    found = {
        prompts: measure(tiny_folder, output, prompts, FAST, reference, "cpu")
        for prompts in ("pocket", "dense")
    }
    assert found["pocket"].keys() == {FID, CMMD, CLIP_SCORE, ADHERENCE, ATTRIBUTES}
    assert found["dense"].keys() == {DENSE_CLIP_SCORE, DENSE_ATTRIBUTES}
    assert 0 <= found["pocket"][ATTRIBUTES] <= 1
    assert len(list(tmp_path.glob("measured-pocket-*"))) == len(list(tmp_path.glob("measured-dense-*"))) == 1


def test_another_model_in_the_same_folder_is_measured_anew(
    tiny_folder: Path, tmp_path: Path, reference: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_folder, model)
    measure(model, tmp_path / "measured", "pocket", FAST, reference, "cpu")
    config = model / "scheduler/scheduler_config.json"
    config.write_text(config.read_text().replace("epsilon", "v_prediction"))
    measure(model, tmp_path / "measured", "pocket", FAST, reference, "cpu")
    assert len(list(tmp_path.glob("measured-pocket-*"))) == 2


def test_the_reference_is_of_the_high_resolution_and_made_once(
    tmp_path: Path, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert reference.name.startswith(f"reference-{FAST.num_drawn}-{FAST.high}px-")
    assert reference.name.endswith("-fake-1.safetensors")
    written = reference.stat().st_mtime_ns
    assert shared_reference(tmp_path, FAST, "cpu") == reference
    assert reference.stat().st_mtime_ns == written


def test_dense_prompts_state_everything() -> None:
    prompts = prompts_of("dense", 3)
    assert [prompt.id for prompt in prompts] == ["dense-001", "dense-002", "dense-003"]
    for prompt in prompts:
        assert prompt.scene is not None
        assert len(prompt.text.split()) >= 50
        assert prompt.scene.background in prompt.text
    assert len({prompt.seed for prompt in prompts}) == 3
