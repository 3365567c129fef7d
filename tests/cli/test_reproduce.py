import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pixart_sigma.cli.app import run
from pixart_sigma.errors import Stopped
from pixart_sigma.reproduction import run as reproduction


@pytest.fixture
def reproduced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """The arguments that were handed over; nothing is trained."""
    received: list[Any] = []

    def reproduce(*arguments: Any) -> Path:
        received.extend(arguments)
        arguments[4]("a stage")
        page = tmp_path / "page.md"
        page.write_text("# table2\n", "utf-8")
        return page

    monkeypatch.setattr(reproduction, "reproduce", reproduce)
    return received


def test_the_page_is_printed(
    reproduced: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["reproduce", "table2", "-o", str(tmp_path), "--seeds", "3"]) == 0
    printed, errors = capsys.readouterr()
    assert printed == f"# table2\n\n{tmp_path / 'page.md'}\n"
    assert errors == "a stage\n"
    assert reproduced[:4] == ["table2", tmp_path, 3, False]


def test_a_smoke_test_has_a_folder_of_its_own(reproduced: list[Any], tmp_path: Path) -> None:
    assert run(["reproduce", "fig8", "-o", str(tmp_path), "--fast"]) == 0
    assert reproduced[:4] == ["fig8", tmp_path / "fast", 2, True]


def test_a_stopped_run_says_so_and_has_its_status(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: Any) -> None:
        raise Stopped("stopped after step 12; go on", 143)

    monkeypatch.setattr(reproduction, "reproduce", stop)
    assert run(["reproduce", "table2", "-o", str(tmp_path)]) == 143
    assert capsys.readouterr().err == "stopped after step 12; go on\n"


def test_a_plan_trains_nothing_and_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from pixart_sigma.cli.app import run; "
        "status = run(['reproduce', 'table3a', '--plan']); "
        "assert 'torch' not in sys.modules; sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("table3a: Which half of the blocks")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table4"], "unknown reproduction 'table4'; choose one of table1"),
        (["table2", "--seeds", "1"], "--seeds 1 is outside 2 to 100"),
        (["table2", "--plan", "--seeds", "1"], "--seeds 1 is outside 2 to 100"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["reproduce", *arguments, "-o", str(tmp_path / "out")]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith(f"error: {message}")
    assert errors.count("\n") == 1
    assert not (tmp_path / "out").exists()
