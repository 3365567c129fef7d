import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from fake_judges import fake_judges  # noqa: F401
from pixart_sigma.cli.app import run
from pixart_sigma.evaluation.run import evaluate

QUICK = ["--size", "32x32", "--steps", "1", "--guidance-scale", "1"]


@pytest.mark.usefixtures("fake_judges")
def test_the_figures_are_printed_and_the_files_written(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pixart_sigma.evaluation.run.evaluate", partial(evaluate, num_drawn=8))
    output = tmp_path / "out"
    assert run(["evaluate", str(tiny_folder), "-o", str(output), "--num", "19", *QUICK]) == 0
    printed, errors = capsys.readouterr()
    assert errors == ""
    assert printed.startswith("Model tiny, 19 prompts, 32x32 pixels, 1 steps of dpm++-2m, guidance 1;")
    assert printed.endswith(f"{output / 'report.html'}\n")
    for words in (
        "prompt adherence",
        "· held-out backgrounds",
        "FID",
        "CMMD",
        "CLIP score",
        "seconds per picture",
    ):
        assert words in printed
    metrics = json.loads((output / "metrics.json").read_text("utf-8"))
    assert len(metrics["pictures"]) == 19
    assert (output / "table.md").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompts", "no.txt"], "prompts file no.txt cannot be read (No such file or directory)"),
        (["--prompts", "empty.txt"], "prompts file empty.txt is empty"),
        (["--prompts", "bad.jsonl"], "prompts file bad.jsonl, line 2, is not JSON"),
        (["--size", "250x256"], "width 250 is not a multiple of 16; nearest: 240 or 256"),
        (["--steps", "0"], "steps 0 is outside 1 to 999"),
        (["--num", "0"], "--num 0 is outside 1 to 380"),
        (["--reference", "no.safetensors"], "reference no.safetensors does not exist"),
        (["--device", "toaster"], "device 'toaster' is not available here"),
        (["--features", "magic"], "unknown features 'magic'; choose pocket"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str],
    message: str,
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b"\n', "utf-8")
    monkeypatch.chdir(tmp_path)
    assert run(["evaluate", str(tiny_folder), "-o", "out", *arguments]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith(f"error: {message}")
    assert errors.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_unknown_model_is_refused_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from pixart_sigma.cli.app import run; "
        f"status = run(['evaluate', 'rocket', '-o', {str(tmp_path / 'out')!r}]); "
        "assert 'torch' not in sys.modules; sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown model 'rocket'")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sigma-512", "-o", "nowhere/x"], "output folder nowhere does not exist"),
        (["sigma-512", "-o", "x", "--reference", "no"], "reference no does not exist"),
        (["sigma-512", "-o", "x", "--size", "250x256"], "width 250 is not a multiple of 16"),
        (["alpha-512-dmd", "-o", "x", "--steps", "20"], "steps 20 is outside 1 to 1"),
        (["alpha-1024-lcm", "-o", "x", "--guidance-scale", "2"], "sampler 'lcm' takes no guidance"),
    ],
)
def test_what_can_be_told_is_told_before_the_download(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fetch(*_: object, **__: object) -> None:
        raise AssertionError("the model is fetched")

    monkeypatch.setattr("pixart_sigma.evaluation.request.find_pipeline", fetch)
    monkeypatch.chdir(tmp_path)
    assert run(["evaluate", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


@pytest.mark.usefixtures("fake_judges")
def test_a_distilled_transformer_alone_is_measured_in_its_own_way(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pixart_sigma.evaluation.run.evaluate", partial(evaluate, num_drawn=8))
    model = tmp_path / "distilled"
    shutil.copytree(tiny_folder / "transformer", model / "transformer")
    shutil.copytree(tiny_folder / "scheduler", model / "scheduler")
    path = model / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"_class_name": "LCMScheduler"}))
    arguments = ["evaluate", str(model), "-o", str(tmp_path / "out"), "--num", "2", "--size", "32x32"]
    assert run(arguments) == 2
    assert "lacks text_encoder, tokenizer, vae" in capsys.readouterr().err
    assert run([*arguments, "--components", str(tiny_folder)]) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text("utf-8"))
    made = {"sampler": "lcm", "steps": 4, "guidance_scale": 1.0}
    assert {name: metrics["making"][name] for name in made} == made
    with Image.open(tmp_path / "out" / metrics["pictures"][0]["file"]) as image:
        assert {name: image.text[name] for name in made} == {name: str(value) for name, value in made.items()}
