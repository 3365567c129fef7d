import json
import shutil
from collections.abc import Collection
from pathlib import Path

import pytest
import torch

from pixart_sigma.errors import InvalidInput, WeightsError
from pixart_sigma.weights import folder as module
from pixart_sigma.weights.catalogue import releases
from pixart_sigma.weights.convert import write_checkpoint
from pixart_sigma.weights.folder import (
    COMPONENTS,
    PipelineFolders,
    base_resolution,
    caption_entries,
    caption_length,
    find_pipeline,
)
from tiny_checkpoints import PLAIN, make_checkpoint, official_state_dict, write_foreign_pth
from tiny_pipeline import write_json


@pytest.fixture
def copied(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "partial"))


def places(found: PipelineFolders) -> dict[str, Path]:
    return {part: found[part] for part in COMPONENTS}


def test_a_pipeline_folder_is_found(tiny_folder: Path) -> None:
    found = find_pipeline(str(tiny_folder))
    assert places(found) == dict.fromkeys(COMPONENTS, tiny_folder)
    assert found.transformer == tiny_folder / "transformer"
    assert (found.name, found.release) == ("tiny", None)
    assert base_resolution(found) == 256


def test_the_pocket_model_is_found() -> None:
    found = find_pipeline("pocket")
    assert found.name == "pocket"
    assert set(COMPONENTS) <= found.parts


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(
        InvalidInput, match=r"unknown model 'rocket': neither 'pocket', nor .*sigma-512.*Hub id"
    ):
        find_pipeline("rocket")


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_folder_that_lacks_a_part_is_refused(copied: Path, component: str) -> None:
    shutil.rmtree(copied / component)
    with pytest.raises(WeightsError, match=f"partial lacks {component};"):
        find_pipeline(copied)
    others = [part for part in COMPONENTS if part != component]
    found = find_pipeline(copied, parts=others)
    assert found[others[0]] == copied
    with pytest.raises(WeightsError, match=f"model partial has no {component};"):
        found[component]


def test_components_lend_what_is_missing_and_nothing_else(copied: Path, tiny_folder: Path) -> None:
    for part in ("vae", "scheduler"):
        shutil.rmtree(copied / part)
    assert places(find_pipeline(copied, tiny_folder)) == {
        "transformer": copied,
        "text_encoder": copied,
        "tokenizer": copied,
        "vae": tiny_folder,
        "scheduler": tiny_folder,
    }
    with pytest.raises(WeightsError, match=r"partial and its components .*partial lacks vae, scheduler;"):
        find_pipeline(copied, copied)


def test_a_tokenizer_is_never_mixed_with_another_text_encoder(copied: Path, tiny_folder: Path) -> None:
    shutil.rmtree(copied / "tokenizer")
    found = find_pipeline(copied, tiny_folder)
    assert found["tokenizer"] == found["text_encoder"] == tiny_folder
    lender = Path(shutil.copytree(tiny_folder, copied.parent / "lender"))
    shutil.rmtree(lender / "text_encoder")
    with pytest.raises(WeightsError, match="lacks tokenizer;"):
        find_pipeline(copied, lender)


@pytest.mark.parametrize("kind", ["folder", "file", "official"])
def test_a_transformer_alone_is_a_model_with_components(kind: str, tmp_path: Path, tiny_folder: Path) -> None:
    if kind == "folder":
        model = write_checkpoint(make_checkpoint(), tmp_path / "x", "diffusers").rename(tmp_path / "step-500")
    elif kind == "file":
        model = write_checkpoint(make_checkpoint(), tmp_path / "step-500.safetensors", "single-file")
    else:
        model = write_foreign_pth(make_checkpoint(), tmp_path / "step-500.pth")
    found = find_pipeline(model, tiny_folder)
    assert found.name == "step-500"
    assert found.transformer == model
    assert found["vae"] == tiny_folder
    assert base_resolution(found) == PLAIN.sample_size * 8
    with pytest.raises(WeightsError, match="is in no pipeline folder; convert it"):
        found["transformer"]
    with pytest.raises(WeightsError, match=r"step-500\S* lacks text_encoder, tokenizer, vae, scheduler;"):
        find_pipeline(model)


class Fetched:
    """Stands in for the Hub: every repository is this folder; says what was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[tuple[str, list[str], str | None]] = []

    def __call__(self, repository: str, parts: Collection[str], revision: str | None = None) -> Path:
        self.asked.append((repository, sorted(parts), revision))
        return self.folder


@pytest.fixture
def hub(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Fetched:
    fetched = Fetched(tiny_folder)
    monkeypatch.setattr(module, "fetch", fetched)
    monkeypatch.setattr(module, "cached", lambda *_: None)
    return fetched


@pytest.mark.parametrize("name", ["PixArt-Sigma-XL-2-512-MS.pth", "PixArt-Sigma-XL-2-512-MS"])
def test_what_is_called_as_on_the_hub_borrows_as_it_does(name: str, tmp_path: Path, hub: Fetched) -> None:
    model = tmp_path / name
    if model.suffix:
        model = write_foreign_pth(make_checkpoint(), model)
    else:
        write_checkpoint(make_checkpoint(), model, "diffusers")
    found = find_pipeline(model)
    assert found.release is releases()["sigma-512"]
    assert found["vae"] == hub.folder
    borrowed = ["scheduler", "text_encoder", "tokenizer", "vae"]
    assert hub.asked == [("PixArt-alpha/pixart_sigma_sdxlvae_T5_diffusers", borrowed, None)]
    assert caption_length(found) == 300
    # What it holds says more than what it is called.
    assert base_resolution(found) == PLAIN.sample_size * 8


def test_a_name_tells_the_base_where_the_file_does_not(tmp_path: Path) -> None:
    state_dict = official_state_dict(make_checkpoint())
    del state_dict["pos_embed"]
    path = tmp_path / "PixArt-Sigma-XL-2-512-MS.pth"
    torch.save(state_dict, path)
    assert base_resolution(find_pipeline(path, parts=())) == 512


def test_a_revision_belongs_to_the_models_repository(hub: Fetched, tiny_folder: Path) -> None:
    found = find_pipeline("alpha-1024", revision="v2", parts=["vae"])
    assert found.revision == "v2"
    assert hub.asked == [("PixArt-alpha/PixArt-XL-2-1024-MS", ["vae"], "v2")]
    assert caption_length(found) == 120
    find_pipeline("owner/name", revision="v3")
    assert hub.asked[1] == ("owner/name", sorted(COMPONENTS), "v3")
    for model in ("pocket", tiny_folder):
        with pytest.raises(InvalidInput, match="revision 'v2' belongs to Hub repositories"):
            find_pipeline(model, revision="v2")


def test_where_no_part_is_wanted_the_hub_is_not_asked(hub: Fetched) -> None:
    assert not find_pipeline("sigma-512", parts=()).parts
    assert not hub.asked


def test_a_copy_of_a_release_goes_by_its_own_name(hub: Fetched) -> None:
    found = find_pipeline("somebody/PixArt-Sigma-XL-2-512-MS")
    assert (found.name, found.release) == ("somebody/PixArt-Sigma-XL-2-512-MS", releases()["sigma-512"])


@pytest.mark.parametrize(
    ("class_name", "length"), [("PixArtAlphaPipeline", 120), ("PixArtSigmaPipeline", 300)]
)
def test_a_folder_says_how_long_captions_are(
    class_name: str, length: int, copied: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    write_json(copied / "model_index.json", {"_class_name": class_name})
    assert caption_length(find_pipeline(copied)) == length
    bare = write_checkpoint(make_checkpoint(), tmp_path / "x.safetensors", "single-file")
    assert caption_length(find_pipeline(bare, copied)) == length
    (copied / "model_index.json").unlink()
    assert caption_length(find_pipeline(copied)) == 300


@pytest.mark.parametrize("length", [77, 120, 300])
@pytest.mark.parametrize("micro_conditioning", [False, True])
def test_what_a_folder_says_of_captions_comes_back(
    length: int, micro_conditioning: bool, copied: Path
) -> None:
    entries = caption_entries(length, micro_conditioning=micro_conditioning)
    alpha = micro_conditioning or length == 120
    assert entries["_class_name"] == ("PixArtAlphaPipeline" if alpha else "PixArtSigmaPipeline")
    assert (len(entries) == 1) == (length == (120 if alpha else 300))
    write_json(copied / "model_index.json", entries)
    assert caption_length(find_pipeline(copied)) == length


@pytest.mark.parametrize("value", [None, "120", 0, 1.5, True])
def test_a_caption_length_that_is_none_is_refused(value: object, copied: Path) -> None:
    write_json(copied / "model_index.json", {"_class_name": "PixArtSigmaPipeline", "_caption_length": value})
    with pytest.raises(
        WeightsError, match=r"model_index\.json has _caption_length .*, not a positive integer"
    ):
        caption_length(find_pipeline(copied))


def test_components_that_lend_nothing_are_refused(tiny_folder: Path) -> None:
    with pytest.raises(InvalidInput, match="tiny has all its parts; leave out its components pocket"):
        find_pipeline(tiny_folder, "pocket")


@pytest.mark.parametrize("value", [None, "32", 0, True])
def test_a_base_that_is_none_is_refused(tmp_path: Path, value: object) -> None:
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text(json.dumps({"sample_size": value}))
    with pytest.raises(WeightsError, match="not a positive integer"):
        base_resolution(find_pipeline(tmp_path, parts=()))
