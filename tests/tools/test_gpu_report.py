import importlib.util
import json
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "gpu_report.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_report", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_report", module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pretended(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script beside a package whose command does as its suite's name says."""
    package = tmp_path / "root" / "src" / "pixart_sigma"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    program = """
        import json, pathlib, sys, time
        suite, file = sys.argv[2], pathlib.Path(sys.argv[-1])
        if suite in ("good", "partial"):
            content = {"suite": suite, "arguments": sys.argv[1:-1], "rows": [1]}
            file.write_text(json.dumps(content))
        if suite in ("slow", "partial"):
            time.sleep(60)
        if suite == "broken":
            sys.exit("first line\\nerror: no such thing")
    """
    (package / "__main__.py").write_text(textwrap.dedent(program))
    monkeypatch.setattr(script, "ROOT", tmp_path / "root")
    suites = (
        script.Suite("good", 60, ("a", "b"), ("--rounds", "2")),
        script.Suite("broken", 60),
        script.Suite("slow", 1),
        script.Suite("partial", 2),
    )
    monkeypatch.setattr(script, "SUITES", suites)
    return script


def test_every_suite_has_its_turn_whatever_became_of_the_others(
    pretended: ModuleType, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    assert pretended.main(["--output", str(output), "--device", "cpu"]) == 1
    good, broken, slow, partial = json.loads((output / "gpu.json").read_text())
    words = ["--scenario", "a", "--scenario", "b", "--rounds", "2", "--device", "cpu", "--json"]
    assert good["arguments"] == ["benchmark", "good", *words]
    assert broken["failed"] == "error: no such thing"
    assert slow["failed"] == "stopped after 1 s"
    assert partial["rows"] == [1]
    assert partial["incomplete"] == "stopped after 2 s"
    assert "first line" in (output / "gpu.log").read_text()


def test_what_is_written_fits_the_page(pretended: ModuleType, tmp_path: Path) -> None:
    from pixart_sigma.benchmark.figures import read_figures, render

    arguments = ["--output", str(tmp_path), "--device", "cpu", "--suite", "broken"]
    assert pretended.main(arguments) == 1
    (figures,) = read_figures(tmp_path / "gpu.json")
    assert "the suite failed: error: no such thing" in render(figures)


def test_without_time_left_a_suite_says_so(
    pretended: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretended, "TOTAL_SECONDS", 0)
    monkeypatch.setenv("OUT", str(tmp_path))
    assert pretended.main(["--suite", "good", "--device", "cpu"]) == 1
    assert json.loads((tmp_path / "gpu.json").read_text())[0]["failed"] == "no time was left"


def test_the_suites_exist_and_fit_into_ten_minutes(script: ModuleType) -> None:
    import typer.main

    from pixart_sigma.benchmark.growth import scenarios as growth
    from pixart_sigma.benchmark.inference import scenarios as inference
    from pixart_sigma.benchmark.memory import scenarios as memory
    from pixart_sigma.benchmark.training import scenarios as training
    from pixart_sigma.cli.benchmark import benchmark

    commands = typer.main.get_command(benchmark).commands  # type: ignore[attr-defined]
    for suite in script.SUITES:
        commands[suite.name].make_context(suite.name, list(suite.options))
        names = list(suite.scenarios or ())
        if suite.name in inference.SCENARIOS:
            inference.choose(suite.name, names, "cuda")
        elif suite.name in growth.SCENARIOS:
            growth.choose(suite.name, names, "cuda")
        elif suite.name == "memory":
            assert set(memory.choose(names, "cuda")) <= set(memory.choose([], "cuda"))
        else:
            training.choose("cuda", names)
    assert "memory" in {suite.name for suite in script.SUITES}
    assert sum(suite.seconds for suite in script.SUITES) <= script.TOTAL_SECONDS < 600


def test_wheels_are_put_beside_the_package(script: ModuleType, tmp_path: Path) -> None:
    import zipfile

    wheels, site = tmp_path / "wheels", tmp_path / "site"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "carried-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("carried.py", "")
        wheel.writestr(
            "carried-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: carried\nVersion: 1.0\n"
        )
        wheel.writestr(
            "carried-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr("carried-1.0.dist-info/RECORD", "")
    with (tmp_path / "log").open("w") as log:
        script.install(wheels, site, log)
    assert (site / "carried.py").is_file(), (tmp_path / "log").read_text()
