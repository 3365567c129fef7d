from pathlib import Path

import pytest
import torch

from pixart_sigma.cli.app import run
from pixart_sigma.weights.checkpoint import read_checkpoint
from pixart_sigma.weights.convert import write_checkpoint
from tiny_checkpoints import PLAIN, make_checkpoint, official_state_dict, same, write_foreign_pth


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_foreign_pth(make_checkpoint(), tmp_path / "mine.pth")


def test_a_file_becomes_a_folder_and_goes_back(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["convert", str(source), str(tmp_path / "model"), "--to", "diffusers"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'model' / 'transformer'}\n"
    assert run(["convert", str(tmp_path / "model"), str(tmp_path / "back.pth"), "--to", "official"]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{tmp_path / 'back.pth'}\n"
    assert not printed.err
    state_dict = torch.load(tmp_path / "back.pth", weights_only=True)["state_dict"]
    assert same(state_dict, official_state_dict(make_checkpoint()))


def test_the_options_arrive(tmp_path: Path) -> None:
    average = make_checkpoint()
    average.state_dict["proj_out.bias"] += 1
    state_dict = official_state_dict(average)
    del state_dict["pos_embed"], state_dict["y_embedder.y_embedding"]
    torch.save({"state_dict": {}, "state_dict_ema": state_dict}, tmp_path / "mine.pth")
    giver = write_foreign_pth(make_checkpoint(), tmp_path / "giver.pth")
    target = tmp_path / "x.safetensors"
    target.write_text("old")
    arguments = ["convert", str(tmp_path / "mine.pth"), str(target), "--to", "single-file", "--ema"]
    arguments += ["--like", "sigma-256", "--dtype", "bfloat16", "--null-caption", str(giver), "--overwrite"]
    assert run(arguments) == 0
    found = read_checkpoint(target)
    assert (found.config.sample_size, found.config.interpolation_scale) == (32, 0.5)
    assert torch.equal(found.state_dict["proj_out.bias"], average.state_dict["proj_out.bias"].bfloat16())
    assert torch.equal(found.null_caption, make_checkpoint().null_caption)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "onnx"], "'onnx' is not one of 'diffusers', 'official', 'single-file'"),
        (["--to", "official", "--dtype", "int8"], "unknown dtype 'int8'; one of float32, bfloat16, float16"),
        (["--to", "official"], r"is there already; name another place, or replace it with --overwrite"),
        (["--to", "single-file"], "let it end in .safetensors"),
        (["--to", "official", "--overwrite", "--like", "pixart"], "no released model 'pixart'"),
        (["--to", "official", "--overwrite", "--ema"], "has no state_dict_ema; use --no-ema"),
        (
            ["--to", "official", "--overwrite", "--revision", "v1"],
            "revision 'v1' belongs to Hub repositories",
        ),
        ([], "Missing option '--to'"),
    ],
)
def test_what_cannot_be_is_one_line(
    arguments: list[str], message: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "there.pth"
    target.write_text("old")
    assert run(["convert", str(source), str(target), *arguments]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert target.read_text() == "old"


def test_without_a_null_caption_there_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_checkpoint(
        make_checkpoint(PLAIN, null_tokens=None), tmp_path / "x.safetensors", "single-file"
    )
    assert run(["convert", str(source), str(tmp_path / "x.pth"), "--to", "official"]) == 0
    printed = capsys.readouterr().err
    assert printed.startswith("warning: ")
    assert "--null-caption" in printed
    assert printed.count("\n") == 1


def test_a_target_that_cannot_be_is_refused_before_the_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fetch(*_: object, **__: object) -> None:
        raise AssertionError("the model is fetched")

    monkeypatch.setattr("pixart_sigma.cli.convert.find_pipeline", fetch)
    (tmp_path / "there.pth").touch()
    assert run(["convert", "sigma-512", str(tmp_path / "there.pth"), "--to", "official"]) == 2
    assert "is there already" in capsys.readouterr().err


def test_a_side_file_that_nobody_named_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_foreign_pth(make_checkpoint(null_tokens=None), tmp_path / "mine.pth")
    side = tmp_path / "x.safetensors.null_caption.safetensors"
    side.write_bytes(b"somebody's")
    assert run(["convert", str(source), str(tmp_path / "x.safetensors"), "--to", "single-file"]) == 2
    assert f"{side} is there already" in capsys.readouterr().err
    assert side.read_bytes() == b"somebody's"


def test_the_source_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model" / "transformer").mkdir(parents=True)
    source = write_foreign_pth(make_checkpoint(), tmp_path / "model" / "transformer" / "mine.pth")
    arguments = ["convert", str(source), str(tmp_path / "model"), "--to", "diffusers", "--overwrite"]
    assert run(arguments) == 2
    assert "holds what is to be converted" in capsys.readouterr().err
    assert source.is_file()


def test_zeros_are_as_many_as_the_models_captions_are_long(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the name of an α file, and by the class of an α pipeline's folder."""
    checkpoint = make_checkpoint(null_tokens=None)
    file = write_foreign_pth(checkpoint, tmp_path / "PixArt-XL-2-512x512.pth")
    write_checkpoint(checkpoint, tmp_path / "mine", "diffusers")
    (tmp_path / "mine" / "model_index.json").write_text('{"_class_name": "PixArtAlphaPipeline"}')
    for number, source in enumerate((file, tmp_path / "mine")):
        target = tmp_path / f"{number}.pth"
        assert run(["convert", str(source), str(target), "--to", "official"]) == 0
        null = torch.load(target, weights_only=True)["state_dict"]["y_embedder.y_embedding"]
        assert len(null) == 120
