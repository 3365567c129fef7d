"""A whole study in small: trained, measured, judged, written; and not again."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fake_judges import FakeExtractor
from pixart_sigma.errors import InvalidInput, Stopped
from pixart_sigma.reproduction import measure, run
from pixart_sigma.reproduction.run import reproduce
from pixart_sigma.reproduction.scale import FAST, Scale
from pixart_sigma.reproduction.studies import STUDIES
from pixart_sigma.reproduction.studies.table3 import table3b
from pixart_sigma.reproduction.study import Study
from pixart_sigma.training import run as training

pytestmark = pytest.mark.usefixtures("fake_judges", "fake_extractor")


@pytest.fixture
def fake_extractor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "extractor", lambda choice, device: FakeExtractor(device))


def fail(*_: Any, **__: Any) -> None:
    raise AssertionError("done again")


def two_cells(scale: Scale) -> Study:
    """Of Table 3b only none and the convolution."""
    study = table3b(scale)
    cells = (study.cells[0], study.cells[3])
    return replace(study, cells=cells, claims=study.claims[:1])


def test_a_study_from_nothing_to_its_page(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(STUDIES, "table3b", two_cells)
    said: list[str] = []
    page = reproduce("table3b", tmp_path, 2, True, said.append, "cpu", str(tiny_folder))
    assert page == tmp_path.resolve() / "table3b.md"
    text = page.read_text("utf-8")
    assert text.count(": the ordering ") == 1
    assert "| conv 2×2 | 3 |" in text
    assert "## Table 3b of the paper" in text
    assert "| conv 2×2 | 8.505 | 0.274 |" in text
    assert (tmp_path / "table3b.png").read_bytes().startswith(b"\x89PNG")
    assert "seed 1, measuring conv 2×2 after 3 steps" in said

    content = json.loads((tmp_path / "table3b.json").read_text("utf-8"))
    assert [cell["label"] for cell in content["cells"]] == ["none", "conv 2×2"]
    for cell in content["cells"]:
        values = cell["values"]["3"]
        assert values.keys() == set(table3b(FAST).metrics) | {"seconds a step"}
        assert all(len(each) == 2 for each in values.values())
        assert values["FID"][0] > 0
        assert values["held-out error"][0] > 0
        assert cell["own"]["samples"] == 2 * 3 * 2
        assert cell["whole"]["samples"] == 2 * (3 + FAST.base) * 2
    assert len(content["claims"]) == 1
    alone = json.loads((tmp_path / "table3b" / "conv-2-2.json").read_text("utf-8"))
    assert alone == content["cells"][1]
    # Three stages for each of two seeds; the base's table and that of the two others.
    assert len(list((tmp_path / "stages").iterdir())) == 6
    assert len(list((tmp_path / "tables").iterdir())) == 2

    monkeypatch.setattr(training, "train", fail)
    monkeypatch.setattr(measure, "evaluate", fail)
    monkeypatch.setattr(measure, "make_reference", fail)
    page.unlink()
    assert reproduce("table3b", tmp_path, 2, True, said.append, "cpu", str(tiny_folder)) == page
    assert page.read_text("utf-8") == text


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_every_study_runs_in_small(name: str, tiny_folder: Path, tmp_path: Path) -> None:
    text = reproduce(name, tmp_path, 2, True, lambda line: None, "cpu", str(tiny_folder)).read_text("utf-8")
    assert text.count(": the ordering ") == len(STUDIES[name](FAST).claims)


def test_a_signal_ends_it(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise Stopped("stopped", 143)

    monkeypatch.setattr(training, "train", stop)
    with pytest.raises(Stopped):
        reproduce("table2", tmp_path, 2, True, lambda line: None, "cpu", str(tiny_folder))


def test_words_need_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("HanTa")
    monkeypatch.setattr(run, "open_workshop", fail)
    assert reproduce("fig6", tmp_path, 2, True, lambda line: None).name == "table1.md"


@pytest.mark.parametrize(
    ("name", "seeds", "message"),
    [
        ("table4", 2, "unknown reproduction 'table4'; choose one of table1, fig6, table2"),
        ("table2", 1, "--seeds 1 is outside 2 to 100; with one seed no noise can be told"),
    ],
)
def test_what_cannot_be_done_is_refused(name: str, seeds: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=message):
        reproduce(name, tmp_path / "out", seeds, True, lambda line: None)
    assert not (tmp_path / "out").exists()
