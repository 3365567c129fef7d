import json
from pathlib import Path
from typing import Any

import pytest

from pixart_sigma.benchmark.figures import read_figures
from pixart_sigma.benchmark.report import render_page
from pixart_sigma.errors import InvalidInput

DOCS = Path(__file__).parents[2] / "docs"
FIGURES: dict[str, Any] = {
    "suite": "plan",
    "device": "cuda",
    "machine": "a GPU",
    "date": "2026-01-02",
    "versions": {"torch": "2.12"},
    "options": {"rounds": 3},
    "rows": [{"scenario": "xl", "s": 0.5}],
}
TABLE = "a GPU; 2026-01-02; rounds 3; torch 2.12.\n\n| scenario | s |\n|---|---|\n| xl | 0.5 |"


def write(folder: Path, name: str, content: object) -> None:
    (folder / name).write_text(json.dumps(content))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "page.md").write_text("# Title\n\n<!-- figures: plan -->\n\nText.\n")
    return tmp_path


def test_the_committed_page_is_what_the_figures_give() -> None:
    expected = render_page(DOCS / "performance")
    assert (DOCS / "performance.md").read_text("utf-8") == expected, (
        "run pixart-sigma benchmark report docs/performance -o docs/performance.md"
    )
    assert "610,856,096" in expected


def test_figures_stand_in_their_place_and_the_rest_is_not_measured(folder: Path) -> None:
    assert render_page(folder) == "# Title\n\nCPU: not measured.\n\nGPU: not measured.\n\nText.\n"
    write(folder, "gpu.json", FIGURES)
    assert render_page(folder) == f"# Title\n\nCPU: not measured.\n\nGPU: {TABLE}\n\nText.\n"


def test_a_file_may_hold_several_machines_and_a_suite_that_failed(folder: Path) -> None:
    failed = {name: value for name, value in FIGURES.items() if name != "rows"} | {"failed": "out of memory"}
    cut_short = FIGURES | {"device": "cpu", "machine": "a CPU", "incomplete": "stopped after 60 s"}
    write(folder, "all.json", [failed, FIGURES, cut_short])
    page = render_page(folder)
    assert page.index("CPU: a CPU") < page.index("GPU: a GPU")
    assert page.count("GPU: a GPU") == 2
    assert "Not measured, the suite failed: out of memory" in page
    assert "Not all of it: stopped after 60 s." in page


def test_a_note_stands_below_the_table(folder: Path) -> None:
    write(folder, "gpu.json", FIGURES | {"note": "It was a cold day."})
    assert f"{TABLE}\n\nIt was a cold day.\n" in render_page(folder)


def test_figures_without_a_place_are_not_left_out_silently(folder: Path) -> None:
    write(folder, "more.json", FIGURES | {"suite": "attention"})
    with pytest.raises(InvalidInput, match=r"no place for suite attention; add <!-- figures: attention -->"):
        render_page(folder)


def test_what_is_no_figures_is_refused(folder: Path) -> None:
    write(folder, "wrong.json", {"suite": "plan"})
    with pytest.raises(InvalidInput, match=r"wrong.json holds no figures \(it lacks device, machine"):
        render_page(folder)
    write(folder, "wrong.json", FIGURES | {"rows": []})
    with pytest.raises(InvalidInput, match=r"it lacks rows"):
        read_figures(folder / "wrong.json")
    (folder / "wrong.json").write_text("{")
    with pytest.raises(InvalidInput, match="cannot be read as JSON"):
        render_page(folder)
    with pytest.raises(InvalidInput, match=r"page.md cannot be read \(No such file"):
        render_page(folder / "nowhere")
