import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fake_judges import PROMPTS
from pixart_sigma.benchmark.outcome import Output
from pixart_sigma.benchmark.shortcuts import measure
from pixart_sigma.benchmark.shortcuts import run as suites
from pixart_sigma.benchmark.shortcuts.measure import measure_shortcuts, take_turns
from pixart_sigma.benchmark.shortcuts.scenarios import choose, scenarios
from pixart_sigma.errors import InvalidInput
from pixart_sigma.evaluation.prompts import Prompt, find_prompts
from pixart_sigma.evaluation.request import EvaluationRequest
from pixart_sigma.pipeline.text_to_image import TextToImage
from pixart_sigma.weights.folder import find_pipeline, read_json

CPU = torch.device("cpu")
SIDE, STEPS = 64, 4


def silent(line: str) -> None:
    """Nobody listens."""


def request(
    model: Path, output: Path, prompts: tuple[Prompt, ...] = PROMPTS[:2], **changes: Any
) -> EvaluationRequest:
    wanted = {"size": (SIDE, SIDE), "num_steps": STEPS, "guidance_scale": 3.0, "device": "cpu"} | changes
    return EvaluationRequest(str(model), prompts, output, **wanted)


@pytest.fixture
def plain_prompts(tmp_path: Path) -> tuple[Prompt, ...]:
    """Nobody can judge their pictures."""
    file = tmp_path / "prompts.txt"
    file.write_text("a red house\na blue cactus\n", "utf-8")
    return find_prompts(str(file))


def pixels(path: Path) -> Any:
    with Image.open(path) as picture:
        return np.asarray(picture).astype(int)


def text(path: Path) -> dict[str, str]:
    with Image.open(path) as picture:
        picture.load()
        return dict(picture.text)  # type: ignore[attr-defined]


def test_turns_go_there_and_back_after_one_that_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))
    monkeypatch.setattr(measure, "seconds_now", lambda device: next(clock))
    order: list[str] = []
    runs = [lambda: order.append("A"), lambda: order.append("B")]
    assert take_turns(runs, 3, CPU) == [[1, 1, 1], [1, 1, 1]]
    assert "".join(order) == "AB" + "AB" + "BA" + "AB"


def test_every_shortcut_is_timed_and_changes_the_pictures(
    tiny_folder: Path, tmp_path: Path, plain_prompts: tuple[Prompt, ...]
) -> None:
    asked = request(tiny_folder, tmp_path / "out", plain_prompts)
    rows = list(measure_shortcuts(asked, suites.one_picture(asked), scenarios(STEPS), CPU, 1, silent))
    exact, *others = rows
    assert exact["scenario"] == "exact"
    assert exact["seconds"] is None
    assert [row["scenario"] for row in others] == [scenario.name for scenario in scenarios(STEPS)]
    for row in others:
        assert row["failed"] is None
        assert len(row["seconds"]) == len(row["exact_seconds"]) == 1
        assert row["ssim"]["estimate"] < 1, row["scenario"]
        assert row["psnr"]["estimate"] > 0, row["scenario"]
        assert row["adherence"] is row["adherence_change"] is row["fid"] is None


def test_pictures_are_those_of_the_library_and_say_what_was_left_out(
    tiny_folder: Path, tmp_path: Path, plain_prompts: tuple[Prompt, ...]
) -> None:
    output = tmp_path / "out"
    names = ["together", "int8", "kv-2x2"]
    outcome = suites.run_shortcuts(
        names, [], request(tiny_folder, output, plain_prompts), 1, Output(tmp_path / "x.json"), silent
    )
    assert outcome.failures == ()
    figures = json.loads((tmp_path / "x.json").read_text("utf-8"))
    assert figures["options"] == {
        "model": "tiny",
        "size": "64x64",
        "steps": 4,
        "dtype": "float32",
        "prompts": 2,
        "rounds": 1,
    }
    for name, word, value in (
        ("together", "reuse_blocks", "2"),
        ("int8", "transformer", "int8"),
        ("kv-2x2", "kv_compression", "2x2 average, blocks deep"),
    ):
        assert text(output / name / "images" / "00001.png")[word] == value
        assert word not in text(output / "exact" / "images" / "00001.png")

    by_name = {scenario.name: scenario for scenario in scenarios(STEPS)}
    for name, int8 in (("exact", False), ("together", False), ("int8", True)):
        model = TextToImage.from_pretrained(tiny_folder, device="cpu", int8=int8)
        given = {"shortcuts": by_name["together"].shortcuts} if name == "together" else {}
        made = model(
            [prompt.text for prompt in plain_prompts],
            height=SIDE,
            width=SIDE,
            num_steps=STEPS,
            guidance_scale=3.0,
            **given,
        )
        for index, image in enumerate(made.images):
            found = pixels(output / name / "images" / f"0000{index + 1}.png")
            assert np.abs(found - np.asarray(image)).max() <= 1


def test_a_schedule_for_other_blocks_is_refused_before_any_picture(
    tiny_folder: Path, tmp_path: Path, plain_prompts: tuple[Prompt, ...]
) -> None:
    schedule = tmp_path / "wide.toml"
    rows = ", ".join(["'1111111'", *["'0000000'"] * (STEPS - 1)])
    schedule.write_text(f"self_attention = [{rows}]\ncross_attention = [{rows}]\nmlp = [{rows}]\n", "utf-8")
    output = tmp_path / "out"
    with pytest.raises(InvalidInput, match="and 7 blocks"):
        suites.run_shortcuts([], [schedule], request(tiny_folder, output, plain_prompts), 1, Output(), silent)
    assert not (output / "exact").exists()


def test_the_schedules_of_the_documents_fit_the_pocket_model() -> None:
    files = sorted((Path(__file__).parents[3] / "docs" / "performance").glob("*.toml"))
    config = read_json(find_pipeline("pocket").transformer / "config.json")
    assert len(files) == 2
    for row in choose(["int8"], files, 20, True)[1:]:
        row.shortcuts.plan(20, config["num_layers"], True)


def test_pictures_that_are_there_are_kept(
    tiny_folder: Path, tmp_path: Path, plain_prompts: tuple[Prompt, ...]
) -> None:
    lines: list[str] = []
    asked = request(tiny_folder, tmp_path / "out", plain_prompts)
    suites.run_shortcuts(["reuse-2"], [], asked, 1, Output(), lines.append)
    assert "reuse-2: 2 of 2 pictures to make" in lines
    (tmp_path / "out" / "reuse-2" / "images" / "00002.png").unlink()
    lines.clear()
    suites.run_shortcuts(["reuse-2", "reuse-3"], [], asked, 1, Output(), lines.append)
    told = [line for line in lines if line.endswith("to make")]
    assert told == [
        "exact: 0 of 2 pictures to make",
        "reuse-2: 1 of 2 pictures to make",
        "reuse-3: 2 of 2 pictures to make",
    ]


def test_a_row_that_fails_has_its_reason_and_the_others_their_figures(
    tiny_folder: Path, tmp_path: Path, plain_prompts: tuple[Prompt, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(device: torch.device) -> None:
        raise InvalidInput("int8 does not run here")

    monkeypatch.setattr("pixart_sigma.pipeline.parts.check_int8_device", refuse)
    asked = request(tiny_folder, tmp_path / "out", plain_prompts)
    outcome = suites.run_shortcuts(["int8", "reuse-2"], [], asked, 1, Output(), silent)
    assert outcome.failures == ("int8: int8 does not run here",)
    assert "| int8 | failed: int8 does not run here |" in outcome.text
    assert "| reuse-2 | --reuse-blocks 2 |" in outcome.text


@pytest.mark.usefixtures("fake_jury")
def test_prompts_of_the_drawn_world_are_judged(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suites, "measure_shortcuts", partial(measure_shortcuts, num_drawn=8))
    asked, output = request(tiny_folder, tmp_path / "out"), Output(tmp_path / "x.json")
    outcome = suites.run_shortcuts(["reuse-2"], [], asked, 1, output, silent)
    exact, row = json.loads((tmp_path / "x.json").read_text("utf-8"))["rows"]
    assert exact["adherence"]["estimate"] == row["adherence"]["estimate"] == 0  # nobody knows such pictures
    assert row["adherence_change"]["estimate"] == 0
    assert exact["fid"] > 0
    assert row["fid"] > 0
    assert "What is not exact makes other pictures" in outcome.text
    assert len(list((tmp_path / "out").glob("reference-*.safetensors"))) == 1


def test_too_few_steps_are_refused_before_any_work(tiny_folder: Path, tmp_path: Path) -> None:
    asked = request(tiny_folder, tmp_path / "out", num_steps=2)
    with pytest.raises(InvalidInput, match="2 steps are too few"):
        suites.run_shortcuts([], [], asked, 1, Output(), silent)
    with pytest.raises(InvalidInput, match="rounds is 0"):
        suites.run_shortcuts([], [], asked, 0, Output(), silent)
    assert not (tmp_path / "out").exists()


def test_one_picture_is_the_models_own_way(tiny_folder: Path, tmp_path: Path) -> None:
    asked = suites.one_picture(request(tiny_folder, tmp_path, size=None, num_steps=None, guidance_scale=None))
    assert (asked.height, asked.width) == (256, 256)
    assert (asked.num_steps, asked.guidance_scale, asked.sampler) == (20, 4.5, "dpm++-2m")
    assert (asked.prompts, asked.seed) == ((PROMPTS[0].text,), PROMPTS[0].seed)
