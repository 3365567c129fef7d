import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pixart_sigma.errors import InvalidInput, MissingDependency, PixArtSigmaError
from pixart_sigma.evaluation.metrics import ocr
from pixart_sigma.evaluation.metrics.ocr import (
    Comparison,
    character_error_rate,
    compare,
    tesseract_reader,
    word_accuracy,
    word_f1,
)

needs_library = pytest.mark.skipif(
    ocr._language_folder() is None, reason="tesseract's English data are not installed"
)
needs_program = pytest.mark.skipif(
    shutil.which("tesseract") is None, reason="the program tesseract is not installed"
)


def picture_of(text: str, side: int = 256) -> NDArray[np.uint8]:
    """A sign: dark letters on a light board on a green ground."""
    picture = Image.new("RGB", (side, side), "#6a9f58")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((side * 0.15, side * 0.3, side * 0.85, side * 0.6), fill="#f4ecd8")
    font = ImageFont.load_default(side * 0.16)
    draw.text((side / 2, side * 0.45), text, fill="#30241c", font=font, anchor="mm")
    return np.asarray(picture)


@pytest.mark.parametrize(
    ("asked", "read", "expected"),
    [
        ("OPEN", "OPEN", Comparison(1, 1, 1, 4, 0)),
        ("OPEN", "open!\n\n", Comparison(1, 1, 1, 4, 0)),
        ("OPEN", "", Comparison(1, 0, 0, 4, 4)),
        ("OPEN", "OFEN", Comparison(1, 1, 0, 4, 1)),
        ("OPEN", "OPEN AND SHUT", Comparison(1, 3, 1, 4, 9)),
        ("good bye", "bye", Comparison(2, 1, 1, 8, 5)),
        ("no no", "no no no", Comparison(2, 3, 2, 5, 3)),
    ],
)
def test_a_reading_is_compared(asked: str, read: str, expected: Comparison) -> None:
    assert compare(asked, read) == expected


def test_the_figures_add_up_words_and_characters_over_all_pictures() -> None:
    comparisons = [compare("OPEN", "OPEN AND SHUT"), compare("good bye", "bye"), compare("SALE", "SALT")]
    assert word_accuracy(comparisons) == 2 / 4
    precision, recall = 2 / 5, 2 / 4
    assert word_f1(comparisons) == pytest.approx(2 * precision * recall / (precision + recall))
    assert character_error_rate(comparisons) == pytest.approx((9 + 5 + 1) / (4 + 8 + 4))


def test_pictures_without_any_word_score_nothing() -> None:
    comparisons = [compare("OPEN", ""), compare("SALE", "|_-")]
    figures = [word_accuracy(comparisons), word_f1(comparisons), character_error_rate(comparisons)]
    assert figures == [0, 0, 1]


def test_what_asks_for_no_word_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"the text asked for, ' !', has no word"):
        compare(" !", "OPEN")


@needs_library
def test_the_library_reads_drawn_words(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tesserocr")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    read = tesseract_reader()
    comparisons = [compare(word, read(picture_of(word))) for word in ("OPEN", "BAKERY", "WELCOME", "FISH")]
    assert word_accuracy(comparisons) == word_f1(comparisons) == 1
    assert character_error_rate(comparisons) == 0
    assert compare("SALE", read(picture_of("SALE", side=500))).matched == 1
    assert read(np.full((64, 64, 3), 200, np.uint8)) == ""


@needs_program
def test_the_program_reads_drawn_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ocr, "find_spec", lambda name: None)
    read = tesseract_reader()
    assert compare("OPEN", read(picture_of("OPEN"))) == Comparison(1, 1, 1, 4, 0)
    assert read(np.full((64, 64, 3), 200, np.uint8)) == ""


def test_without_tesseract_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ocr, "_language_folder", lambda: None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MissingDependency, match="apt-get install tesseract-ocr"):
        tesseract_reader()


def row(text: str, left: int, top: int, confidence: float, level: int = 5) -> str:
    """A row of tesseract's table: a word 30 x 10 pixels large."""
    return f"{level}\t1\t1\t1\t1\t1\t{left}\t{top}\t30\t10\t{confidence}\t{text}"


def test_the_surest_reading_of_a_place_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    header = "level\tpage_num\tblock_num\tpar_num\tline_num\tword_num\tleft\ttop\twidth\theight\tconf\ttext"
    readings = {
        "0": "\n".join(
            [header, row("", 0, 0, -1, level=4), row("BYF", 52, 12, 90.5), row("GOOD", 10, 13, 96)]
        ),
        "2": "\n".join([row("BYE", 50, 10, 97), row("~", 200, 10, 30), row("NOW", 20, 40, 88)]),
    }
    seen = []

    def run_program(picture: Image.Image, threshold: str) -> str:
        seen.append((picture.size, picture.mode, threshold))
        return readings[threshold]

    monkeypatch.setattr(ocr, "_language_folder", lambda: None)
    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setattr(ocr, "_run_program", run_program)
    assert tesseract_reader()(np.zeros((64, 128, 3), np.uint8)) == "GOOD BYE NOW"
    assert seen == [((1024, 512), "L", threshold) for _ in range(4) for threshold in ("0", "2")]


def test_a_failure_of_the_program_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "tesseract"
    program.write_text("#!/bin/sh\ncat > /dev/null\nprintf 'no data\\nat all\\n' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(ocr, "find_spec", lambda name: None)
    with pytest.raises(PixArtSigmaError, match=r"^tesseract failed \(no data\); check that"):
        tesseract_reader()(picture_of("OPEN", 64))
