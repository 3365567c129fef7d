import json
import subprocess
import sys
from pathlib import Path

import pytest

from pixart_sigma.cli.app import run

QUICK = ["--size", "32x32", "--steps", "1"]


def test_the_table_is_printed_and_the_files_written(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "more.txt").write_text("a lake\n\na blue cactus\n", "utf-8")
    output = tmp_path / "out"
    arguments = ["a red house", "--prompts", str(tmp_path / "more.txt"), "--model", str(tiny_folder)]
    assert run(["compare-precision", *arguments, "-o", str(output), *QUICK]) == 0
    printed, errors = capsys.readouterr()
    assert errors == ""
    lines = printed.splitlines()
    assert lines[0] == (
        "Model tiny, 3 prompts, compared with float32; 32x32 pixels, 1 steps of dpm++-2m, guidance 4.5"
    )
    assert lines[1].split() == "text encoder MB cosine least error PSNR least difference".split()
    assert [line.split()[0] for line in lines[2:5]] == ["float32,", "bfloat16,", "int8"]
    assert len(lines[4].split()) == 8
    assert any(line.startswith("nf4 is left out: nf4 needs widths") for line in lines)
    assert lines[-1] == str(output / "sheet.png")
    assert json.loads((output / "figures.json").read_text("utf-8"))["prompts"] == [
        "a red house",
        "a lake",
        "a blue cactus",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is no prompt to compare with"),
        ([" "], "the prompt is empty"),
        (["a", "--prompts", "no.txt"], "prompts file no.txt cannot be read (No such file or directory)"),
        (["a", "--size", "250x256"], "width 250 is not a multiple of 16; nearest: 240 or 256"),
        (["a", "--steps", "0"], "steps 0 is outside 1 to 999"),
        (
            ["a", "--embeddings-only", "--steps", "3"],
            "--steps is of pictures, and --embeddings-only makes none",
        ),
        (["a", "--dtype", "int3"], "unknown dtype 'int3'; one of auto, float32, bfloat16"),
        (["a", "--device", "toaster"], "device 'toaster' is not available here"),
        (["a", "--model", "rocket"], "unknown model 'rocket'"),
        (["a", "-o", "full"], "output folder full is not empty; name another, or empty it"),
        (["a", "-o", "full/file"], "output full/file is a file; name a folder"),
        (["a", "-o", "none/out"], "output folder none does not exist; create it first"),
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
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    monkeypatch.chdir(tmp_path)
    assert run(["compare-precision", "-o", "out", "--model", str(tiny_folder), *arguments]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith(f"error: {message}")
    assert errors.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_unknown_model_is_refused_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from pixart_sigma.cli.app import run; "
        f"status = run(['compare-precision', 'a', '--model', 'rocket', '-o', {str(tmp_path / 'out')!r}]); "
        "assert 'torch' not in sys.modules; sys.exit(status)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 2
