import resource
import subprocess
import sys

import pytest
from typer import Exit

import pixart_sigma
from pixart_sigma.cli.app import app, run


def test_help_is_fast_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom pixart_sigma.cli.app import run\nassert run(['--help']) == 0\n"
        "assert not {'torch', 'diffusers', 'transformers', 'numpy', 'PIL'} & set(sys.modules)"
    )
    seconds = []
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert result.returncode == 0, result.stderr
        assert "generate" in result.stdout
        assert "train" in result.stdout
        # Processor time, which a busy machine does not stretch.
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) <= 0.5


@pytest.mark.parametrize("command", ["generate", "train"])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    assert "--output" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.strip() == pixart_sigma.__version__


def test_without_arguments_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    assert "generate" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["paint"], "No such command 'paint'"),
        (["generate"], "Missing argument"),
        (["generate", "a house"], "Missing option '--output'"),
        (["generate", "a house", "-o", "x.png", "--steps", "many"], "Invalid value for '--steps'"),
        (["generate", "a house", "-o", "x.png", "--colour"], "No such option: --colour"),
        (["train", "pocket"], "Missing option '--output'"),
    ],
)
def test_wrong_arguments_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith(f"error: {message}")
    assert errors.endswith("; see pixart-sigma --help\n")
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("raised", "status", "message"),
    [
        (
            ModuleNotFoundError("No module named 'sentencepiece'", name="sentencepiece"),
            2,
            "install sentencepiece",
        ),
        (ImportError("libx.so", name="torch._C"), 2, "install torch"),
        (
            OSError(28, "No space left on device", "cactus.png"),
            2,
            "error: cactus.png: No space left on device",
        ),
        (MemoryError(), 2, "error: the memory does not suffice; make the picture smaller"),
        (
            RuntimeError("CUDA out of memory. Tried to allocate 1 TiB"),
            2,
            "error: the memory does not suffice",
        ),
        (KeyboardInterrupt(), 130, ""),
        (Exit(3), 3, ""),
    ],
)
def test_what_else_may_happen_is_one_line(
    raised: BaseException,
    status: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object) -> None:
        raise raised

    monkeypatch.setattr("pixart_sigma.cli.generate.find_pipeline", fail)
    assert run(["generate", "a house", "-o", "x.png"]) == status
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == bool(message)


def test_our_own_mistakes_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ImportError("no such thing", name="pixart_sigma.nothing")

    monkeypatch.setattr("pixart_sigma.cli.generate.find_pipeline", fail)
    with pytest.raises(ImportError, match="no such thing"):
        run(["generate", "a house", "-o", "x.png"])


def test_commands_are_these() -> None:
    assert [command.callback.__name__ for command in app.registered_commands if command.callback] == [
        "generate",
        "models",
        "convert",
        "train",
        "evaluate",
        "compare_precision",
        "reproduce",
    ]
    assert [group.name for group in app.registered_groups] == ["recipes", "benchmark"]
