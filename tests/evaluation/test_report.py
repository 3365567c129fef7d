from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pixart_sigma.evaluation.report import columns, markdown, rows, write_page, write_table


def entry(metric: str, part: str, pictures: str, value: float, *interval: float) -> dict[str, Any]:
    low, high = interval or (None, None)
    return {
        "metric": metric,
        "part": part,
        "pictures": pictures,
        "value": value,
        "num": 40,
        "low": low,
        "high": high,
    }


@pytest.fixture
def metrics() -> dict[str, Any]:
    return {
        "version": "1.2.3",
        "model": "my <model>",
        "weights": "abc",
        "prompts": {"num": 40, "digest": "d"},
        "making": {
            "size": "48x32",
            "steps": 20,
            "guidance_scale": 4.5,
            "sampler": "ddim",
            "device": "cpu",
        },
        "features": "pocket-1",
        "reference_pictures": 8,
        "figures": [
            entry("prompt adherence", "all", "model", 0.5, 0.375, 0.625),
            entry("prompt adherence", "one object", "model", 0.25, 0.0, 0.5),
            entry("attributes read right", "sign_colour", "model", 1.0, 1.0, 1.0),
            entry("FID", "", "model", 1234.5),
            entry("prompt adherence", "all", "floor", 0.0123, 0.0, 0.1),
            entry("FID", "", "truth", 3.14159),
        ],
        "pictures": [
            {
                "id": "a",
                "prompt": "a <b>red</b> cat",
                "group": "one object",
                "seed": 0,
                "file": "images/a.png",
                "wrong": [
                    {"attribute": "kind", "kind": "cat", "stated": "cat", "read": None},
                    {"attribute": "colour", "kind": "cat", "stated": "red", "read": None},
                    {"attribute": "count", "kind": "car", "stated": 1, "read": 2},
                    {"attribute": "sign_colour", "kind": None, "stated": "red", "read": None},
                ],
                "lettering": {"asked": "OPEN", "read": "OPFN"},
            },
            {
                "id": "b",
                "prompt": "a car",
                "group": "signs",
                "seed": 1,
                "file": "images/b.png",
                "wrong": [],
            },
        ],
    }


def test_there_is_a_column_for_each_set_of_pictures_and_a_row_for_each_figure(
    metrics: dict[str, Any],
) -> None:
    assert columns(metrics) == ["model", "truth", "floor"]
    assert [(row.label, row.num, row.cells, row.is_part) for row in rows(metrics)] == [
        ("prompt adherence", "40", ("50.0 [37.5, 62.5] %", "–", "1.2 %"), False),
        ("· one object", "40", ("25.0 [0.0, 50.0] %", "–", "–"), True),
        ("attributes read right", "", ("", "", ""), False),
        ("· sign colour", "40", ("100.0 [100.0, 100.0] %", "–", "–"), True),
        ("FID", "40", ("1,234", "3.14", "–"), False),
    ]


def test_the_markdown_table_says_what_was_measured_and_what_columns_mean(
    metrics: dict[str, Any], tmp_path: Path
) -> None:
    write_table(metrics, tmp_path)
    text = (tmp_path / "table.md").read_text("utf-8")
    assert text == markdown(metrics)
    lines = text.splitlines()
    assert lines[0].startswith("Model my <model>, 40 prompts, 48x32 pixels, 20 steps of ddim, guidance 4.5;")
    assert lines[2:5] == [
        "| figure | on | model | truth | floor |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| prompt adherence | 40 | 50.0 [37.5, 62.5] % | – | 1.2 % |",
    ]
    assert "floor: the model's pictures beside shuffled prompts" in lines[-1]
    assert "ceiling" not in text


class Page(HTMLParser):
    """The addresses of pictures, the figures' classes, and all text."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.classes: list[str | None] = []
        self.tags: set[str] = set()
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "img":
            self.sources.append(dict(attrs)["src"] or "")
        if tag == "figure":
            self.classes.append(dict(attrs).get("class"))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_needs_no_other_file_and_says_what_was_read_wrong(
    metrics: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (1024, 512), "red").save(tmp_path / f"images/{name}.png")
    write_page(metrics, tmp_path)
    html = (tmp_path / "report.html").read_text("utf-8")
    page = Page()
    page.feed(html)
    assert len(page.sources) == 2
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    assert "http" not in html
    assert page.classes == ["wrong", "right"]
    words = " ".join(" ".join(page.words).split())
    assert "a <b>red</b> cat" in words  # a prompt is text, not markup
    for remark in ("no cat", "car's count: 2, not 1", "sign colour: none, not red", "reads “OPFN”"):
        assert remark in words
    assert "cat's colour" not in words  # of what is not there only that is said
    assert "50.0 [37.5, 62.5] %" in words


def test_pictures_without_verdicts_are_neither_right_nor_wrong(
    metrics: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (16, 16)).save(tmp_path / "images/b.png")
    del metrics["pictures"][0], metrics["pictures"][0]["wrong"]
    write_page(metrics, tmp_path)
    page = Page()
    page.feed((tmp_path / "report.html").read_text("utf-8"))
    assert page.classes == [None]
