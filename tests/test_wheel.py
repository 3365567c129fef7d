"""The built wheel works by itself: installed into an empty environment, called from another directory."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "pixart_sigma"


def run(*command: str | Path, directory: Path) -> str:
    # The environment of the tests must not lend the wheel anything.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(
        [str(part) for part in command], cwd=directory, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    build = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder)
    run(*build, ROOT, directory=folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_carries_every_file_of_the_package(wheel: Path) -> None:
    ours = {
        path.relative_to(PACKAGE.parent).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "pixart_sigma/pocket/model_index.json" in ours
    assert ours - names == set()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_wheel_makes_a_picture_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    environment, elsewhere = tmp_path / "environment", tmp_path / "elsewhere"
    elsewhere.mkdir()
    run(sys.executable, "-m", "venv", environment, directory=elsewhere)
    run(environment / "bin" / "pip", "install", "--quiet", wheel, directory=elsewhere)

    command = (environment / "bin" / "pixart-sigma", "generate", "a red house in the snow")
    run(*command, "--size", "128x128", "--steps", "2", "-o", "house.png", directory=elsewhere)
    with Image.open(elsewhere / "house.png") as image:
        assert image.size == (128, 128)
        assert image.convert("L").getextrema()[0] < image.convert("L").getextrema()[1], "one flat colour"
