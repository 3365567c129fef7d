import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fake_judges import PROMPTS, SIDE, FakeExtractor
from pixart_sigma.errors import InvalidInput, MissingDependency
from pixart_sigma.evaluation.metrics.reference import Reference, load_reference, save_reference
from pixart_sigma.evaluation.prompts import Prompt, find_prompts
from pixart_sigma.evaluation.reference_set import make_reference, open_reference
from pixart_sigma.evaluation.request import EvaluationRequest
from pixart_sigma.evaluation.run import evaluate
from pixart_sigma.pipeline.metadata import write_png
from pixart_sigma.pipeline.request import MAX_IMAGES
from pixart_sigma.world import render

pytestmark = pytest.mark.usefixtures("fake_judges")
DRAWN = 8


def ignore(what: str, done: int, total: int) -> None:
    pass


def request(
    model: Path, output: Path, prompts: tuple[Prompt, ...] = PROMPTS, **changes: Any
) -> EvaluationRequest:
    wanted = {"size": (SIDE, SIDE), "num_steps": 2, "guidance_scale": 2.0, "device": "cpu"} | changes
    return EvaluationRequest(str(model), prompts, output, **wanted)


def figure(metrics: dict[str, Any], metric: str, part: str, pictures: str) -> Any:
    found = [
        one
        for one in metrics["figures"]
        if (one["metric"], one["part"], one["pictures"]) == (metric, part, pictures)
    ]
    assert len(found) == 1
    return found[0]


def test_everything_is_measured_on_all_sets_of_pictures(tiny_folder: Path, tmp_path: Path) -> None:
    stages = []
    metrics = evaluate(request(tiny_folder, tmp_path), lambda what, *_: stages.append(what), DRAWN)
    assert list(dict.fromkeys(stages)) == [
        "making the reference",
        "making pictures",
        "judging: model",
        "judging: ceiling",
        "judging: truth",
    ]
    assert {path.name for path in tmp_path.iterdir() if path.suffix != ".safetensors"} == {
        "images",
        "metrics.json",
        "table.md",
        "report.html",
    }
    assert json.loads((tmp_path / "metrics.json").read_text("utf-8")) == metrics
    assert {path.stem for path in (tmp_path / "images").iterdir()} == {prompt.id for prompt in PROMPTS}

    truth = figure(metrics, "prompt adherence", "all", "truth")
    assert (truth["value"], truth["low"], truth["high"], truth["num"]) == (1, 1, 1, len(PROMPTS))
    assert figure(metrics, "prompt adherence", "held-out colours", "truth")["value"] == 1
    for pictures in ("model", "ceiling", "floor"):  # the fake checker knows none of these
        assert figure(metrics, "prompt adherence", "all", pictures)["value"] == 0
    assert figure(metrics, "attributes read right", "colour", "truth")["value"] == 1
    assert figure(metrics, "attributes read right", "kind", "model")["value"] == 0
    # Of what is seen nothing is said where nothing is.
    seen = [each for each in metrics["figures"] if each["metric"] == "attributes of things that are seen"]
    assert {each["pictures"] for each in seen} == {"truth"}
    assert {each["part"] for each in seen} == {"count", "colour", "place"}
    assert all(each["value"] == 1 for each in seen)
    assert figure(metrics, "lettering", "word accuracy", "truth")["value"] == 1
    assert figure(metrics, "lettering", "word accuracy", "model")["value"] == 0
    for pictures in ("model", "ceiling", "truth", "floor"):
        score = figure(metrics, "CLIP score", "", pictures)
        assert 0 < score["low"] <= score["value"] <= score["high"] <= 100
    # Drawn scenes are nearer to other drawn scenes than what an untrained model makes.
    assert figure(metrics, "FID", "", "truth")["value"] < figure(metrics, "FID", "", "model")["value"]
    assert figure(metrics, "CMMD", "", "truth")["value"] < figure(metrics, "CMMD", "", "model")["value"]
    assert figure(metrics, "seconds per picture", "", "model")["value"] > 0
    assert metrics["reference_pictures"] == DRAWN

    first = metrics["pictures"][0]
    assert first["prompt"] == PROMPTS[0].text
    assert {"attribute": "kind", "kind": "balloon", "stated": "balloon", "read": None} in first["wrong"]


def test_the_ceiling_is_what_the_models_autoencoder_gives_back(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pixart_sigma.encoders.autoencoder.Autoencoder.encode", lambda self, pixels: pixels)
    monkeypatch.setattr("pixart_sigma.encoders.autoencoder.Autoencoder.decode", lambda self, latents: latents)
    monkeypatch.setattr("pixart_sigma.evaluation.run.make_pictures", lambda *_: None)
    monkeypatch.setattr("pixart_sigma.evaluation.run.seconds_per_picture", lambda *_: 1.0)
    for name in ("write_page", "write_table"):
        monkeypatch.setattr(f"pixart_sigma.evaluation.run.{name}", lambda *_: None)
    monkeypatch.setattr(
        "pixart_sigma.evaluation.run.open_pictures",
        lambda output, prompts: (np.zeros((SIDE, SIDE, 3), np.uint8) for _ in prompts),
    )
    metrics = evaluate(request(tiny_folder, tmp_path), ignore, DRAWN)
    assert figure(metrics, "prompt adherence", "all", "ceiling")["value"] == 1


def test_pictures_that_are_there_are_kept_and_others_made_again(tiny_folder: Path, tmp_path: Path) -> None:
    evaluate(request(tiny_folder, tmp_path), ignore, DRAWN)
    files = sorted((tmp_path / "images").iterdir())
    before = {path: path.read_bytes() for path in files}
    files[0].unlink()
    files[1].write_bytes(before[files[1]][:200])
    with Image.open(files[2]) as image:
        image.load()
        write_png(image, files[2], {**image.text, "seed": "77"})
    untouched = {path: path.stat().st_mtime_ns for path in files[3:]}
    made: list[tuple[int, int]] = []

    def progress(what: str, number: int, total: int) -> None:
        if what == "making pictures":
            made.append((number, total))
        assert what != "making the reference"  # that is kept too

    evaluate(request(tiny_folder, tmp_path), progress, DRAWN)
    assert made[-1] == (3, 3)
    assert {path: path.stat().st_mtime_ns for path in files[3:]} == untouched
    for path in files[:3]:
        with Image.open(path) as image:
            # The same seed; beside other prompts the sums round differently.
            found = np.asarray(image).astype(int)
        path.write_bytes(before[path])
        with Image.open(path) as image:
            assert np.abs(found - np.asarray(image)).max() <= 1


def test_other_weights_or_settings_make_all_pictures_again(tiny_folder: Path, tmp_path: Path) -> None:
    prompts = PROMPTS[:2]
    counted = []

    def progress(what: str, number: int, total: int) -> None:
        if what == "making pictures" and number == total:
            counted.append(total)

    for changes in ({}, {}, {"num_steps": 1}, {"guidance_scale": 3.0}, {"size": (SIDE, 48)}):
        evaluate(request(tiny_folder, tmp_path, prompts, **changes), progress, DRAWN)
    assert counted == [2, 2, 2, 2]


def test_a_files_prompts_have_neither_adherence_nor_truth(tiny_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text('a red house\na shop that says "OPEN"\n', "utf-8")
    prompts = find_prompts(str(file))
    metrics = evaluate(request(tiny_folder, tmp_path / "out", prompts), ignore)
    assert {(one["metric"], one["pictures"]) for one in metrics["figures"]} == {
        ("CLIP score", "model"),
        ("CLIP score", "floor"),
        ("lettering", "model"),
        ("seconds per picture", "model"),
    }
    assert metrics["reference_pictures"] is None
    assert metrics["pictures"][1]["lettering"] == {"asked": "OPEN", "read": "X"}


def test_many_small_pictures_are_made_in_calls_that_are_allowed(tiny_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("a red house\n" * (MAX_IMAGES + 2), "utf-8")
    prompts = find_prompts(str(file))
    wanted = request(tiny_folder, tmp_path / "out", prompts, size=(16, 16), num_steps=1, guidance_scale=1.0)
    metrics = evaluate(wanted, ignore)
    assert len(metrics["pictures"]) == MAX_IMAGES + 2


def test_a_folder_of_real_pictures_is_a_reference_that_can_be_shared(
    tiny_folder: Path, tmp_path: Path
) -> None:
    folder, shared = tmp_path / "real", tmp_path / "real.safetensors"
    (folder / "more").mkdir(parents=True)
    for index, prompt in enumerate(PROMPTS[:3]):
        assert prompt.scene is not None
        Image.fromarray(render(prompt.scene, SIDE, SIDE + 16 * index)).save(folder / f"more/{index}.png")
    (folder / "notes.txt").write_text("no picture", "utf-8")
    file = tmp_path / "prompts.txt"
    file.write_text("a\nb\n", "utf-8")
    prompts = find_prompts(str(file))
    first = evaluate(
        request(tiny_folder, tmp_path / "out", prompts, reference=folder, save_reference=shared), ignore
    )
    second = evaluate(request(tiny_folder, tmp_path / "out", prompts, reference=shared), ignore)
    assert first["reference_pictures"] == second["reference_pictures"] == 3
    assert first["figures"] == second["figures"]
    assert {"FID", "CMMD"} <= {one["metric"] for one in first["figures"]}


def test_an_extractor_without_texts_gives_fid_alone(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Plain:
        name = "plain-1"
        side = SIDE  # of pictures that are no larger it makes no patches
        features = FakeExtractor().features

    monkeypatch.setattr("pixart_sigma.evaluation.run.extractor", lambda choice, device: Plain())
    metrics = evaluate(request(tiny_folder, tmp_path, PROMPTS[:2]), ignore, DRAWN)
    found = {one["metric"] for one in metrics["figures"]}
    assert "FID" in found
    assert not {"CMMD", "CLIP score", "patch FID"} & found


def test_patches_are_compared_with_those_of_pictures_of_the_same_size(
    tiny_folder: Path, tmp_path: Path
) -> None:
    shared = tmp_path / "reference.safetensors"
    same = evaluate(
        request(tiny_folder, tmp_path / "same", PROMPTS[:3], save_reference=shared), ignore, DRAWN
    )
    truth, model = figure(same, "patch FID", "", "truth"), figure(same, "patch FID", "", "model")
    assert truth["value"] < model["value"]
    other = evaluate(
        request(tiny_folder, tmp_path / "other", PROMPTS[:3], reference=shared, size=(SIDE + 16, SIDE)),
        ignore,
    )
    assert "patch FID" not in {one["metric"] for one in other["figures"]}


def test_without_tesseract_a_warning_takes_the_place_of_lettering(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent() -> object:
        raise MissingDependency("reading words needs tesseract")

    monkeypatch.setattr("pixart_sigma.evaluation.run.tesseract_reader", absent)
    prompts = (PROMPTS[0], PROMPTS[-1])
    assert prompts[1].lettering is not None
    with pytest.warns(UserWarning, match="no figures of lettering: reading words needs tesseract"):
        metrics = evaluate(request(tiny_folder, tmp_path, prompts), ignore, DRAWN)
    assert "lettering" not in {one["metric"] for one in metrics["figures"]}


def test_a_reference_of_another_extractor_is_refused_before_any_work(
    tiny_folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "other.safetensors"
    images = np.zeros((2, 8, 8, 3), np.uint8)
    reference = make_reference(FakeExtractor(), [images], 2, lambda *_: None)
    save_reference(Reference("other-2", reference.statistics), file)
    with pytest.raises(InvalidInput, match="was made with other-2, not with fake-1"):
        evaluate(request(tiny_folder, tmp_path / "out", reference=file), ignore)
    assert not (tmp_path / "out").exists()


def test_a_corrupt_picture_of_a_reference_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(InvalidInput, match="has 1 pictures; a reference needs at least 2"):
        open_reference(tmp_path, FakeExtractor(), 16, 16, lambda *_: None)
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(InvalidInput, match=r"reference picture .*a\.png cannot be read"):
        open_reference(tmp_path, FakeExtractor(), 16, 16, lambda *_: None)


def test_a_reference_is_the_same_however_it_is_batched(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    whole = make_reference(FakeExtractor(), [images], 5, lambda *_: None)
    reports: list[tuple[int, int]] = []
    parts = make_reference(FakeExtractor(), [images[:2], images[2:]], 5, lambda *of: reports.append(of))
    assert reports == [(2, 5), (5, 5)]
    torch.testing.assert_close(parts.statistics.covariance, whole.statistics.covariance)
    save_reference(parts, tmp_path / "r.safetensors")
    found = load_reference(tmp_path / "r.safetensors", "fake-1")
    assert found.embeddings is not None
    assert whole.embeddings is not None
    assert torch.equal(found.embeddings, whole.embeddings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": (30, 32)}, "height 30 is not a multiple of 16"),
        ({"num_steps": 0}, "steps 0 is outside"),
        ({"guidance_scale": 0.5}, "guidance scale 0.5 is not"),
        ({"reference": Path("no.safetensors")}, r"reference no\.safetensors does not exist"),
        ({"save_reference": Path("nowhere/r.safetensors")}, "output folder nowhere does not exist"),
        ({"output": Path("nowhere/out")}, "output folder nowhere does not exist"),
        ({"output": Path(__file__)}, "is a file; name a folder"),
        ({"model": "rocket"}, "unknown model 'rocket'"),
        ({"reference": Path(__file__), "save_reference": Path("r")}, "would copy the file --reference"),
        ({"prompts": (Prompt("1", "a", "prompts", 0),), "save_reference": Path("r")}, "has nothing to save"),
    ],
)
def test_bad_input_is_refused_before_anything_is_loaded(
    changes: dict[str, Any], message: str, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = {"model": str(tiny_folder), "prompts": PROMPTS, "output": tmp_path / "out"} | changes
    with pytest.raises(InvalidInput, match=message):
        EvaluationRequest(**wanted)
    assert not list(tmp_path.iterdir())
