"""A whole study in small: trained, measured, judged, written; and not again."""

import json
from pathlib import Path
from typing import Any

import pytest

from fake_judges import FakeExtractor
from pixart_sigma.errors import InvalidInput, Stopped
from pixart_sigma.reproduction import measure, run
from pixart_sigma.reproduction.run import reproduce
from pixart_sigma.training import run as training

pytestmark = pytest.mark.usefixtures("fake_judges", "fake_extractor")


@pytest.fixture
def fake_extractor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "extractor", lambda choice, device: FakeExtractor())


def fail(*_: Any, **__: Any) -> None:
    raise AssertionError("done again")


def test_a_study_from_nothing_to_its_page(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    page = reproduce("table3b", tmp_path, 2, True, said.append, "cpu", str(tiny_folder))
    assert page == tmp_path.resolve() / "table3b.md"
    text = page.read_text("utf-8")
    assert text.count(": the ordering ") == 4
    assert "| token discarding | 3 |" in text
    assert "## Table 3b of the paper" in text
    assert "| conv 2×2 | 8.505 | 0.274 |" in text
    assert (tmp_path / "table3b.png").read_bytes().startswith(b"\x89PNG")

    content = json.loads((tmp_path / "table3b.json").read_text("utf-8"))
    assert [cell["label"] for cell in content["cells"]] == [
        "none",
        "token discarding",
        "token pooling",
        "conv 2×2",
    ]
    for cell in content["cells"]:
        values = cell["values"]["3"]
        assert all(len(each) == 2 for each in values.values())
        assert values["FID"][0] > 0
        assert cell["own"]["samples"] == 2 * 3 * 2
        assert cell["whole"]["samples"] == 2 * (3 + 4) * 2
    assert len(content["claims"]) == 4
    alone = json.loads((tmp_path / "table3b" / "conv-2-2.json").read_text("utf-8"))
    assert alone == content["cells"][3]
    # Five stages for each of two seeds, and the base's table and the raised ones'.
    assert len(list((tmp_path / "stages").iterdir())) == 10
    assert len(list((tmp_path / "tables").iterdir())) == 2

    monkeypatch.setattr(training, "train", fail)
    monkeypatch.setattr(measure, "evaluate", fail)
    monkeypatch.setattr(measure, "make_reference", fail)
    page.unlink()
    assert reproduce("table3b", tmp_path, 2, True, said.append, "cpu", str(tiny_folder)) == page
    assert page.read_text("utf-8") == text


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
