import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pixart_sigma.cli.app import run
from pixart_sigma.errors import Stopped
from pixart_sigma.training.recipe import TransformerRecipe


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The arguments that the trainer was called with; it trains nothing."""
    received: list[Any] = []
    stand_in(monkeypatch, "pixart_sigma.training.run", train=lambda *arguments: received.extend(arguments))
    return received


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The arguments that the launcher was called with; it launches nothing, and says 7."""
    received: list[Any] = []

    def launch(*arguments: object, remedy: str) -> int:
        assert "--resume" in remedy
        received.extend(arguments)
        return 7

    monkeypatch.setattr("pixart_sigma.pipeline.placement.launch.launch", launch)
    return received


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **functions: Any) -> None:
    """Put a module in the place of one that would import torch."""
    module = ModuleType(name)
    vars(module).update(functions)
    monkeypatch.setitem(sys.modules, name, module)
    # `from package import module` prefers the package's attribute.
    package, _, last = name.rpartition(".")
    if package in sys.modules:
        monkeypatch.setattr(sys.modules[package], last, module, raising=False)


def test_train_hands_its_arguments_over(tmp_path: Path, trained: list[Any]) -> None:
    assert run(["train", "pocket", "-o", str(tmp_path), "--set", "a.b=1", "--set", "c=x", "--resume"]) == 0
    assert trained == ["pocket", tmp_path, ["a.b=1", "c=x"], True, False]


def test_a_changed_recipe_may_be_resumed(tmp_path: Path, trained: list[Any]) -> None:
    assert run(["train", "pocket", "-o", str(tmp_path), "--resume", "--allow-changed"]) == 0
    assert trained == ["pocket", tmp_path, [], True, True]


def test_one_process_needs_no_launcher(tmp_path: Path, trained: list[Any], launched: list[Any]) -> None:
    assert run(["train", "pocket", "-o", str(tmp_path), "--nproc-per-node", "1"]) == 0
    assert trained[0] == "pocket"
    assert launched == []


@pytest.mark.parametrize("status", [143, 130])
def test_a_stopped_run_says_so_and_has_its_status(
    status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def train(*_: object) -> None:
        raise Stopped("stopped after step 12, which is saved; go on with --resume", status)

    stand_in(monkeypatch, "pixart_sigma.training.run", train=train)
    assert run(["train", "pocket", "-o", str(tmp_path)]) == status
    assert capsys.readouterr().err == "stopped after step 12, which is saved; go on with --resume\n"


def test_several_processes_get_the_same_command(
    tmp_path: Path, trained: list[Any], launched: list[Any]
) -> None:
    arguments = ["--set", "run.steps=5", "--set", "samples.prompts=['a b']", "--resume", "--allow-changed"]
    assert run(["train", "pocket-256", "-o", str(tmp_path), *arguments, "--nproc-per-node", "4"]) == 7
    assert trained == []
    nproc, command = launched
    assert nproc == 4
    # What the launched processes will be given means the same again, without the launcher.
    assert run(command) == 0
    assert trained == ["pocket-256", tmp_path, ["run.steps=5", "samples.prompts=['a b']"], True, True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pocket-256"], "Missing option '--output'"),
        (["pocket-256", "-o", "x", "--gpus", "8"], "--gpus is ignored without --plan"),
        (["pocket-256", "-o", "x", "--gpu-type", "l40s"], "--gpu-type is ignored without --plan"),
        (["pocket-256", "-o", "x", "--efficiency", "0.5"], "--efficiency is ignored without --plan"),
        (["pocket-256", "-o", "x", "--allow-changed"], "--allow-changed is ignored without --resume"),
        (["pocket-256", "-o", "x", "--nproc-per-node", "0"], "--nproc-per-node 0 is less than 1"),
        (["pocket-256", "-o", "x", "--nproc-per-node", "3"], "recipe 'pocket-256': run.batch_size 32"),
        (["pocket-256", "-o", "x", "--nproc-per-node", "2", "--set", "run.stepz=1"], "recipe 'pocket-256'"),
        (["pocket-256", "--plan", "-o", "x"], "--output is ignored with --plan"),
        (["pocket-256", "--plan", "--resume"], "--resume is ignored with --plan"),
        (["pocket-256", "--plan", "--allow-changed"], "--allow-changed is ignored with --plan"),
        (["pocket-256", "--plan", "--nproc-per-node", "2"], "--nproc-per-node is ignored with --plan"),
        (["pocket-autoencoder", "--plan"], "--plan is for transformers"),
    ],
)
def test_what_would_be_ignored_or_fail_is_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    trained: list[Any],
    launched: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["train", *arguments]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith(f"error: {message}")
    assert errors.count("\n") == 1
    assert trained == launched == []
    assert not list(tmp_path.iterdir())


def test_a_launched_process_launches_none(
    tmp_path: Path,
    trained: list[Any],
    launched: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RANK", "0")
    assert run(["train", "pocket-256", "-o", str(tmp_path)]) == 0
    assert trained[0] == "pocket-256"
    assert run(["train", "pocket-256", "-o", str(tmp_path), "--nproc-per-node", "2"]) == 2
    assert "give it to torchrun" in capsys.readouterr().err
    assert launched == []


def test_a_plan_is_printed_and_nothing_is_done(
    trained: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    planned: list[Any] = []

    def plan_recipe(*arguments: object) -> str:
        planned.append(arguments)
        return "two lines\nof a plan"

    stand_in(monkeypatch, "pixart_sigma.training.plan.recipe", plan_recipe=plan_recipe)
    options = ["--set", "run.steps=9", "--gpus", "16", "--gpu-type", "h100-80g", "--efficiency", "0.5"]
    assert run(["train", "pocket-256", "--plan", *options]) == 0
    assert run(["train", "pocket-256", "--plan"]) == 0
    assert capsys.readouterr().out == "two lines\nof a plan\n" * 2
    recipe, *rest = planned[0]
    assert isinstance(recipe, TransformerRecipe)
    assert recipe.run.steps == 9
    assert rest == [16, "h100-80g", 0.5]
    assert planned[1][1:] == (1, "a100-80g", None)
    assert trained == []


def test_help_names_the_exit_statuses(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "--help"]) == 0
    text = capsys.readouterr().out
    assert "143" in text
    assert "130" in text


def test_launched_processes_refuse_a_recipe_with_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pixart_sigma.pipeline.placement.launch import launch

    # As if the processes found what their parent cannot know.
    assert launch(2, ["train", "nowhere.toml", "-o", str(tmp_path / "out")]) == 2
    errors = capfd.readouterr().err
    assert errors.startswith("error: recipe 'nowhere.toml' is neither a readable TOML file nor one of")
    assert errors.count("\n") == 1
