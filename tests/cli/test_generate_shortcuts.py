"""Shortcuts on the command line: written in the picture, and refused before anything is loaded."""

from pathlib import Path

import pytest
from PIL import Image

from pixart_sigma.cli.app import run

PROMPT = "a small cactus with a happy face in the desert"
NAMES = ("guidance_interval", "freeze_captions_after", "reuse_blocks", "transformer")


def test_what_was_left_out_is_written_in_the_picture(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = '["1111", "0000", "1111", "0110"]'
    schedule = tmp_path / "mine.toml"
    schedule.write_text(f"self_attention = {rows}\ncross_attention = {rows}\nmlp = {rows}\n")
    common = ["generate", PROMPT, "--model", str(tiny_folder), "--size", "64x48", "--steps", "4"]
    pixels, said = {}, {}
    for name, options in {
        "exact": [],
        "interval": ["--guidance-interval", "0.25:0.75"],
        "freeze": ["--freeze-captions-after", "2"],
        "reuse": ["--reuse-blocks", "2"],
        "schedule": ["--reuse-blocks", str(schedule)],
        "int8": ["--int8"],
        "several": ["--guidance-interval", "0:0.75", "--reuse-blocks", "2", "--int8", "--num-images", "1"],
    }.items():
        output = tmp_path / f"{name}.png"
        assert run([*common, "-o", str(output), *options]) == 0
        with Image.open(output) as image:
            pixels[name] = image.tobytes()
            said[name] = {key: image.text[key] for key in NAMES if key in image.text}
    assert capsys.readouterr().err == ""
    schedule_said = said["schedule"].pop("reuse_blocks")
    assert schedule_said.startswith("mine.toml (")
    assert said == {
        "exact": {},
        "interval": {"guidance_interval": "0.25:0.75"},
        "freeze": {"freeze_captions_after": "2"},
        "reuse": {"reuse_blocks": "2"},
        "schedule": {},
        "int8": {"transformer": "int8"},
        "several": {"guidance_interval": "0:0.75", "reuse_blocks": "2", "transformer": "int8"},
    }
    assert len(set(pixels.values())) > 4  # a random model's pictures differ in few pixels


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--guidance-interval", "1"], "guidance interval '1' is not LOW:HIGH, fractions of the sampling"),
        (
            ["--guidance-interval", "0.1:0.8", "--guidance-scale", "1"],
            "guidance interval 0.1:0.8 needs guidance",
        ),
        (
            ["--freeze-captions-after", "21"],
            "freeze_captions_after 21 is outside 1 to 19, for 20 steps",
        ),
        (["--reuse-blocks", "0"], "reuse_blocks 0 is outside 2 to 20"),
        (["--reuse-blocks", "10000"], "reuse_blocks 10000 is outside 2 to 20"),
        (["--reuse-blocks", "1.5"], "reuse_blocks '1.5' is no whole number of steps"),
        (["--guidance-interval", "0:1"], "guidance interval 0:1 leaves out none of 20 steps"),
        (["--reuse-blocks", "x.toml"], "reuse schedule x.toml cannot be read"),
    ],
)
def test_what_does_not_fit_is_one_line_before_a_model_is_fetched(
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fetch(*_: object) -> None:
        raise AssertionError("a model is fetched")

    monkeypatch.setattr("pixart_sigma.cli.generate.find_pipeline", fetch)
    assert run(["generate", "a", "-o", str(tmp_path / "x.png"), "--model", "sigma-512", *options]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"error: {message}")
    assert errors.count("\n") == 1


def test_a_schedule_for_other_blocks_is_refused_by_the_plan(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = '["11", "00"]'
    schedule = tmp_path / "mine.toml"
    schedule.write_text(f"self_attention = {rows}\ncross_attention = {rows}\nmlp = {rows}\n")
    given = ["--model", str(tiny_folder), "--steps", "2", "--reuse-blocks", str(schedule)]
    assert run(["generate", "a", "-o", str(tmp_path / "x.png"), *given]) == 2
    assert capsys.readouterr().err.startswith(
        "error: reuse schedule mine.toml is for 2 steps and 2 blocks; this is"
    )
