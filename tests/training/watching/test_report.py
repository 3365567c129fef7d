import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pixart_sigma.errors import InvalidInput
from pixart_sigma.training.watching.report import write_report

HOME = "/" + "home/ann"
VOID = {"meta", "img"}
SVG = {"svg", "path", "use"}


class Page(HTMLParser):
    """Collects text, addresses and open elements, so that a page can be asked about."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self.addresses: list[str] = []
        self.elements: list[str] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.addresses += [value or "" for name, value in attributes if name in ("href", "src")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data.split()

    def says(self, words: str) -> bool:
        return words in " ".join(self.text)


def run(output: Path, records: list[dict[str, Any]]) -> Path:
    output.mkdir()
    (output / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return output


def whole_run(output: Path) -> Path:
    records: list[dict[str, Any]] = []
    for step in range(10, 401, 10):
        figures = {"loss": 1 + 20 / step, "mse": 0.9, "gradient_norm": 0.3}
        rest = {"learning_rate": 2e-5, "samples_per_second": 40.0}
        records.append({"step": step, "seconds": 20.0 * step} | figures | rest)
        if step % 100 == 0:
            records.append({"step": step, "seconds": 20.0 * step, "validation_loss": 1.5 + 10 / step})
    records.append({"step": 200, "seconds": 4001.0, "event": "resumed", "detail": "30 steps done again"})
    for num in range(1200):
        detail = f"{HOME}/pics/{num}.jpg: truncated"
        records.append({"step": 1 + num // 3, "seconds": 1.0, "event": "corrupt image", "detail": detail})
    records.append({"step": 400, "seconds": 8100.0, "export_megabytes": 23.5})
    run(output, records)
    (output / "recipe.toml").write_text(
        f'kind = "transformer"\n[run]\nsteps = 400\nbatch_size = 64\n[data]\nfolder = "{HOME}/my data/cats"\n'
        '[samples]\nprompts = ["a <b>red</b> house & a tree"]\n'
    )
    (output / "surgery.txt").write_text(f"of {HOME}/base: resolution 128 to 256\n")
    (output / "machine.json").write_text('{"Processor": "Some CPU, 2 cores"}')
    (output / "samples").mkdir()
    for step in (100, 200, 300, 400):
        Image.new("RGB", (32, 16)).save(output / f"samples/step-{step:08d}.png")
    return output


def test_a_report_is_one_page_that_tells_the_run(tmp_path: Path) -> None:
    path = write_report(whole_run(tmp_path / "kv-256"))
    assert path == tmp_path / "kv-256/report.html"
    page = Page(path.read_text("utf-8"))
    assert page.open == []
    for words in (
        "kv-256 Training report · transformer",
        "Steps 400 finished",
        "Time 2 h 15 min",
        "Samples 25.6 k 64 a step",
        "Throughput 40",
        "Training loss 1.05 from 3",
        "Validation loss 1.525 from 1.6",
        "Learning rate",
        "Gradient norm",
        "Step 100",
        "Step 200",
        "Step 400",
        "1 more beside this page",
        "validation loss 1.6 1.525 1.525 1.6",
        "export megabytes 23.5",
        "resumed at step 200 step 200: 30 steps done again",
        "corrupt image 1,200 times, steps 1 to 400",
        "step 400: …/1199.jpg: truncated",
        "of …/base: resolution 128 to 256",
        "Processor Some CPU, 2 cores",
        'folder = "…/cats"',
        "a <b>red</b> house & a tree",
    ):
        assert page.says(words), words
    assert page.elements.count("figure") == 5 + 3
    assert page.elements.count("svg") == 5 + 1  # the loss is drawn for wide and for narrow windows
    assert page.elements.count("img") == 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["kv-256"]


def test_it_needs_nothing_but_the_pictures_beside_it_and_names_no_place(tmp_path: Path) -> None:
    html = write_report(whole_run(tmp_path / "run")).read_text("utf-8")
    allowed = re.compile(r"data:image/webp;base64,|samples/step-\d{8}\.png$|#")
    assert [address for address in Page(html).addresses if not allowed.match(address)] == []
    assert "<script" not in html
    assert "@import" not in html
    assert "url(" not in html.replace("url(#", "")
    assert "ann" not in re.sub(r"[^a-z]+", " ", html).split()
    assert str(tmp_path) not in html


def test_words_of_the_run_do_not_become_elements(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    records = [{"step": step, "seconds": 1.0, evil: 1.0 * step} for step in (1, 2)]
    output = run(tmp_path / "run", [*records, {"step": 2, "seconds": 1.0, "event": evil, "detail": evil}])
    for file in ("recipe.toml", "surgery.txt"):
        (output / file).write_text(evil)
    (output / "machine.json").write_text(json.dumps({evil: evil}))
    page = Page(write_report(output).read_text("utf-8"))
    assert "script" not in page.elements
    assert page.says(evil)


def test_a_run_that_goes_on_has_a_report_already(tmp_path: Path) -> None:
    output = run(tmp_path / "run", [{"step": 10, "seconds": 30.0, "loss": None, "mse": 1.0}])
    with (output / "metrics.jsonl").open("a") as file:
        file.write('{"step": 20, "sec')
    (output / "recipe.toml").write_text('kind = "autoencoder"\n[run]\nsteps = 5000\nbatch_size = 2\n')
    page = Page(write_report(output).read_text("utf-8"))
    assert page.says("Steps 10 of 5,000")
    assert page.says("Samples 20")
    assert not page.says("Training loss")
    assert "svg" not in page.elements


@pytest.mark.parametrize("key", ["images_per_second", "rate"])
def test_the_keys_of_older_runs_are_known(tmp_path: Path, key: str) -> None:
    output = run(tmp_path / "run", [{"step": step, "seconds": 1.0, key: 7.0} for step in (1, 2)])
    page = Page(write_report(output).read_text("utf-8"))
    assert page.says("Throughput" if key == "images_per_second" else "Learning rate")


def test_surgery_is_told_from_its_log_too(tmp_path: Path) -> None:
    output = run(tmp_path / "run", [])
    changes = [("a.weight", "kept", "[1] float32"), ("b.weight", "made", "[2] float32; drawn")]
    lines = [
        json.dumps({"name": name, "action": action, "detail": detail}) for name, action, detail in changes
    ]
    (output / "surgery.jsonl").write_text("\n".join(lines))
    page = Page(write_report(output).read_text("utf-8"))
    assert page.says("made b.weight: [2] float32; drawn")
    (output / "surgery.jsonl").write_text('{"name"')
    assert not Page(write_report(output).read_text("utf-8")).says("made b.weight")


def test_a_folder_without_metrics_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"has no metrics\.jsonl; give the output folder"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []
