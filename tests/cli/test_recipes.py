import json
import subprocess
import sys
from pathlib import Path

import pytest

from pixart_sigma.cli.app import run
from pixart_sigma.cli.recipes import first_comment
from pixart_sigma.training.recipe import packaged_recipes, read_recipe_text, recipe_schema

SCHEMA = Path(__file__).parents[2] / "docs" / "recipe.schema.json"


def test_the_list_says_what_every_recipe_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recipes", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == packaged_recipes()
    for line in lines:
        assert line.endswith(".")
        assert len(line.split(maxsplit=1)[1]) > 20


def test_first_comment() -> None:
    assert first_comment("# What for.\n# More.\nkind = 1") == "What for."
    assert first_comment("kind = 1\n# What for.") == ""


def test_show_prints_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recipes", "show", "sigma-512"]) == 0
    assert capsys.readouterr().out == read_recipe_text("sigma-512")


@pytest.mark.parametrize("name", packaged_recipes())
def test_every_packaged_recipe_passes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["recipes", "check", name]) == 0
    output, errors = capsys.readouterr()
    assert 3 <= len(output.splitlines()) <= 6
    assert all(line.startswith("warning: ") for line in errors.splitlines())


def test_check_says_what_would_happen_and_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["recipes", "check", "sigma-512", "--set", "run.batch_size=64"]) == 0
    output, errors = capsys.readouterr()
    assert output.splitlines() == [
        "a transformer, at 512 px, 40 buckets from 256x1024 to 1024x256",
        "begins with sigma-256; positions for 32 x 32 tokens",
        "learns from pixart data/sigma; features cached",
        "100,000 steps of 64, bf16, seed 0",
        "came, learning rate 1e-05 (2e-05 at a batch of 256), constant after 1,000 of warm-up, clip 0.01, "
        "average 0.9999",
        "a checkpoint every 2,500 steps, the last 2 kept; validated every 2,500; the pipeline with the averaged "
        "weights in bf16",
    ]
    assert errors.splitlines() == [
        "warning: data.sources.0.pixart data/sigma is not there yet",
    ]


def test_check_refuses_a_broken_rule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(read_recipe_text("pocket-256").replace("\nsteps = ", "\nstepz = "), "utf-8")
    assert run(["recipes", "check", str(path)]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert "run.stepz: unknown key" in errors
    assert errors.count("\n") == 1


def test_the_committed_schema_is_up_to_date() -> None:
    assert json.loads(SCHEMA.read_text("utf-8")) == recipe_schema(), (
        "write it again: pixart-sigma recipes schema -o docs/recipe.schema.json"
    )


def test_schema_to_the_terminal_and_to_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "schema.json"
    assert run(["recipes", "schema", "-o", str(path)]) == 0
    assert capsys.readouterr().out == ""
    assert run(["recipes", "schema"]) == 0
    assert capsys.readouterr().out == path.read_text("utf-8")
    assert run(["recipes", "schema", "-o", str(tmp_path / "nowhere" / "schema.json")]) == 2


def test_recipes_alone_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recipes"]) == 2
    output, errors = capsys.readouterr()
    assert "schema" in output + errors
    assert "error" not in output + errors


def test_checking_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom pixart_sigma.cli.app import run\n"
        "assert run(['recipes', 'check', 'sigma-4k']) == 0\nassert run(['recipes', 'list']) == 0\n"
        "assert not {'torch', 'diffusers', 'transformers', 'numpy', 'PIL'} & set(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
