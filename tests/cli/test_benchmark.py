from pathlib import Path

import pytest

from pixart_sigma.benchmark import run as suites
from pixart_sigma.benchmark.growth import run as growth
from pixart_sigma.benchmark.outcome import Outcome, Output
from pixart_sigma.benchmark.shortcuts import run as shortcuts
from pixart_sigma.benchmark.start import run as start
from pixart_sigma.benchmark.waterfall import run as waterfall
from pixart_sigma.cli import app
from pixart_sigma.evaluation.prompts import evenly, find_prompts, pocket_prompts
from pixart_sigma.evaluation.request import EvaluationRequest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("suite", ["transformer", "pipeline", "vae", "text-encoder"])
def test_a_suite_on_inference_is_handed_everything(
    suite: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[tuple[object, ...]] = []

    def remember(*arguments: object) -> Outcome:
        calls.append(arguments[:-1])
        return Outcome("table")

    monkeypatch.setattr(suites, "run_inference", remember)
    files = ["--json", str(tmp_path / "x.json"), "--markdown", str(tmp_path / "x.md")]
    options = ["--scenario", "tiny", "--dtype", "bfloat16", "--device", "cpu", "--rounds", "3", *files]
    steps = ["--steps", "4"] if suite == "pipeline" else []
    compiled = ["--compile"] if suite == "transformer" else []
    assert app.run(["benchmark", suite, *options, *steps, *compiled, "--batch", "2"]) == 0
    assert capsys.readouterr().out == "table\n"
    output = Output(tmp_path / "x.json", tmp_path / "x.md")
    num_steps = 4 if suite == "pipeline" else None
    assert calls == [(suite, ["tiny"], ["bfloat16"], "cpu", 3, num_steps, 2, suite == "transformer", output)]


@pytest.mark.parametrize("suite", ["train-step", "ablations", "plan", "attention"])
def test_a_suite_on_training_is_handed_everything(suite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[object, ...]] = []

    def remember(*arguments: object) -> Outcome:
        calls.append(arguments[:-1])
        return Outcome("table")

    monkeypatch.setattr(suites, "run_training", remember)
    scenario = [] if suite == "attention" else ["--scenario", "pocket"]
    compiled = ["--compile"] if suite == "train-step" else []
    assert app.run(["benchmark", suite, *scenario, *compiled, "--device", "cpu", "--rounds", "3"]) == 0
    names = () if suite == "attention" else ["pocket"]
    assert calls == [(suite, names, "cpu", 3, suite == "train-step", Output())]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """What the suites that are not run were handed."""
    handed: list[tuple[object, ...]] = []

    def remember(*arguments: object) -> Outcome:
        handed.append(arguments[:-1])
        return Outcome("table")

    for module, name in (
        (growth, "run_compression"),
        (growth, "run_scaling"),
        (shortcuts, "run_shortcuts"),
        (start, "run_start"),
        (waterfall, "run_waterfall"),
    ):
        monkeypatch.setattr(module, name, remember)
    return handed


def test_the_other_suites_are_handed_everything(calls: list[tuple[object, ...]], tmp_path: Path) -> None:
    plot, output = tmp_path / "growth.png", Output(tmp_path / "x.json", tmp_path / "x.md")
    options = ["--scenario", "tiny", "--device", "cpu", "--rounds", "3"]
    options += ["--json", str(output.json_file), "--markdown", str(output.markdown_file)]
    dtype = ["--dtype", "bfloat16"]
    for words in (
        ["kv-compression", *dtype],
        ["scaling", *dtype, "--plot", str(plot)],
        ["start"],
        ["pipeline", *dtype, "--waterfall", "--steps", "4", "--batch", "2"],
        ["transformer", *dtype, "--waterfall", "--compile"],
    ):
        assert app.run(["benchmark", *words, *options]) == 0
    precise = (["tiny"], ["bfloat16"], "cpu", 3)
    assert calls == [
        (*precise, output),
        (*precise, plot, output),
        (["tiny"], "cpu", 3, output),
        ("pipeline", *precise, 4, 2, False, output),
        ("transformer", *precise, None, 1, True, output),
    ]


def test_shortcuts_are_measured_on_what_evaluate_takes(
    calls: list[tuple[object, ...]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = Output(tmp_path / "x.json", tmp_path / "x.md")
    schedule = tmp_path / "mine.toml"
    words = [
        "--scenario",
        "int8",
        "--schedule",
        str(schedule),
        "--size",
        "64x48",
        "--steps",
        "8",
        "--device",
        "cpu",
        "--rounds",
        "3",
    ]
    words += ["--json", str(output.json_file), "--markdown", str(output.markdown_file)]
    pictures = tmp_path / "pictures"
    assert app.run(["benchmark", "shortcuts", "-o", str(pictures), "--num", "7", *words]) == 0
    prompts = evenly(pocket_prompts(), 7)
    request = EvaluationRequest("pocket", prompts, pictures, (48, 64), 8, device="cpu")
    assert calls == [(["int8"], [schedule], request, 3, output)]

    assert app.run(["benchmark", "shortcuts", "-o", str(pictures)]) == 0
    assert calls[1] == (
        (),
        (),
        EvaluationRequest("pocket", evenly(pocket_prompts(), 100), pictures),
        7,
        Output(),
    )

    file = tmp_path / "prompts.txt"
    file.write_text("a red house\n", "utf-8")
    assert app.run(["benchmark", "shortcuts", "-o", str(pictures), "--prompts", str(file)]) == 0
    assert calls[2][2] == EvaluationRequest("pocket", find_prompts(str(file)), pictures)

    assert app.run(["benchmark", "shortcuts"]) == 2
    assert "Missing option '--output'" in capsys.readouterr().err


def test_rows_that_failed_are_printed_and_end_with_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = Outcome("table", ("xl-256 in float32: the two sides differ",))
    monkeypatch.setattr(suites, "run_inference", lambda *arguments: outcome)
    assert app.run(["benchmark", "transformer"]) == 2
    printed = capsys.readouterr()
    assert printed.out == "table\n"
    assert "1 of the rows failed and have no figures: xl-256 in float32: the two sides differ" in printed.err


def test_an_option_that_a_suite_would_ignore_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (
        ["plan", "--compile"],
        ["attention", "--scenario", "tiny"],
        ["vae", "--steps", "3"],
        ["vae", "--compile"],
        ["vae", "--waterfall"],
        ["start", "--dtype", "float32"],
    ):
        assert app.run(["benchmark", *command]) == 2
        assert "No such option" in capsys.readouterr().err


def test_the_report_is_printed_or_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(DOCS / "performance")
    assert app.run(["benchmark", "report", folder]) == 0
    assert app.run(["benchmark", "report", folder, "-o", str(tmp_path / "page.md")]) == 0
    assert capsys.readouterr().out == (tmp_path / "page.md").read_text("utf-8")
    assert app.run(["benchmark", "report", folder, "-o", str(tmp_path / "nowhere" / "page.md")]) == 2
