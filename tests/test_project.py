"""What the project promises about itself: layers, dependencies, sizes, documents, public surface."""

import importlib.metadata
import importlib.resources
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "pixart_sigma"
MIB = 2**20

# Registry builds of torchvision do not load beside the CPU build of torch, and merely installed they break
# transformers and diffusers; the others pull it in (docs/dependencies.md).
UNWANTED = {"torchvision", "timm", "open-clip-torch", "clean-fid", "torch-fidelity", "lpips"}


def documents() -> list[Path]:
    return [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


def blocks(language: str) -> list[str]:
    """The fenced blocks of the README in a language."""
    return re.findall(
        rf"^```{language}\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )


def installed() -> set[str]:
    names = (distribution.metadata["Name"] for distribution in importlib.metadata.distributions())
    return {re.sub(r"[-_.]+", "-", name).lower() for name in names}


def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_layers_import_only_what_stands_below_them() -> None:
    linter = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as main; main()"]
    result = subprocess.run([*linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_nothing_that_brings_torchvision_is_installed() -> None:
    assert not installed() & UNWANTED


def test_the_cpu_build_of_torch_stands_alone() -> None:
    torch = importlib.metadata.version("torch")
    nvidia = {name for name in installed() if name.startswith("nvidia-")}
    # A CUDA build, on a user's GPU machine, rightly brings them.
    assert not (torch.endswith("+cpu") and nvidia)


def test_torch_is_capped() -> None:
    # Without the cap an installer may prefer a newer CUDA build to the CPU build that a machine offers.
    assert "torch>=2.11,<2.14" in pyproject()["project"]["dependencies"]


def test_every_dependency_is_explained() -> None:
    reasons = (ROOT / "docs" / "dependencies.md").read_text()
    project = pyproject()["project"]
    extras = [name for extra in project["optional-dependencies"].values() for name in extra]
    names = {re.split(r"[<>=\[; ]", requirement)[0] for requirement in [*project["dependencies"], *extras]}
    assert not {name for name in names if f"`{name}`" not in reasons}


def test_files_of_the_package_stay_small() -> None:
    files = [path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {path.name: path.stat().st_size for path in files if path.stat().st_size > 16 * MIB} == {}
    pocket = [path for path in files if path.is_relative_to(PACKAGE / "pocket")]
    assert sum(path.stat().st_size for path in pocket) <= 24_000_000


def test_the_documents_call_targets_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    text = "\n".join(path.read_text() for path in documents())
    called = set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE))
    assert {"demo", "test", "check"} <= called <= targets


def test_the_commands_of_the_readme_are_understood() -> None:
    import typer.main

    from pixart_sigma.cli.app import app

    commands = typer.main.get_command(app).commands
    lines = [shlex.split(line, comments=True) for block in blocks("sh") for line in block.splitlines()]
    called = [line[1:] for line in lines if line[:1] == ["pixart-sigma"]]
    assert called
    for name, *arguments in called:
        commands[name].make_context(name, arguments)  # raises for an option or argument that it does not know


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("python")
    exec(compile(code, "README.md", "exec"), {})
    assert list(tmp_path.glob("*.png"))


def test_the_documents_link_to_files_that_exist() -> None:
    broken = []
    elsewhere = ROOT / "docs/performance/page.md"  # the page that is made of it stands a folder up
    for path in set(documents()) - {elsewhere}:
        for target in re.findall(r"\]\(([^)#\s]+)", path.read_text()):
            if not re.match(r"[a-z]+:", target) and not (path.parent / target).exists():
                broken.append(f"{path.relative_to(ROOT)}: {target}")
    assert broken == []


@pytest.mark.parametrize("suffix", [".md", ".py", ".toml", ".json"])
def test_nothing_names_a_path_of_one_machine(suffix: str) -> None:
    ours = [*PACKAGE.rglob("*"), *(path for path in ROOT.glob("tests/**/*") if path != Path(__file__))]
    files = [*documents(), *(path for path in ours if path.is_file())]
    absolute = re.compile(r"(?<![\w.~:/-])/(work|tmp|root|home|opt|mnt)/")
    named = [path for path in files if path.suffix == suffix and absolute.search(path.read_text())]
    assert named == []


def test_the_changelog_has_the_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert "## [Unreleased]" in changelog
    version = pyproject()["project"]["version"]
    assert f"## [{version}]" in changelog or version == "0.1.0"


def test_the_package_says_that_it_is_typed() -> None:
    assert (importlib.resources.files("pixart_sigma") / "py.typed").is_file()
