import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

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
