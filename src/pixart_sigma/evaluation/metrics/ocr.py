"""Words in pictures: what tesseract reads, compared with what was asked for.

The figures are those of TextAtlasEval (Wang et al., "TextAtlas5M: A Large-scale Dataset for Dense Text Image
Generation"), which adds up words over all pictures. Two departures, so that a figure means what its name says: words
match exactly (there also at 80 % likeness), and the character error rate is over the characters asked for (there over
those of the longer text). Letters' case and punctuation do not count.

Knows nothing of prompts: which words were asked for is its caller's to say.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixart_sigma.encoders.pretrained import first_line
from pixart_sigma.errors import InvalidInput, MissingDependency, PixArtSigmaError

Reader = Callable[[NDArray[np.uint8]], str]
"""A picture (H, W, 3), sRGB → the text in it."""

_LANGUAGE = "eng"
_SPARSE_TEXT = 12  # tesseract's mode for words anywhere in a picture
# Letters that tesseract was trained on are 30 pixels high; with much larger ones it finds no lines.
_SHORTER_SIDE = 512
_DPI = 300
_THRESHOLDS = (
    "0",
    "2",
)  # how ink is told from paper: one threshold for the page (Otsu), one for each place (Sauvola)
# What is read off leaves, bricks and faces is rarely surer, what is read off a sign nearly always.
_SUREST = 85.0
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Comparison:
    """Of one picture: words asked for, words read, words that are both; characters asked for, and edits from the text
    asked for to the text read.
    """

    asked: int
    read: int
    matched: int
    characters: int
    edits: int


def compare(asked: str, read: str) -> Comparison:
    """The text asked for and the text read → how they differ. Raises InvalidInput if no word was asked for."""
    import jiwer

    asked_words, read_words = _words(asked), _words(read)
    if not asked_words:
        raise InvalidInput(f"the text asked for, {asked!r}, has no word; give at least one")
    reference = " ".join(asked_words)
    difference = jiwer.process_characters(reference, " ".join(read_words))
    return Comparison(
        asked=len(asked_words),
        read=len(read_words),
        matched=(Counter(asked_words) & Counter(read_words)).total(),
        characters=len(reference),
        edits=difference.substitutions + difference.deletions + difference.insertions,
    )


def word_accuracy(comparisons: Sequence[Comparison]) -> float:
    """The share of the words asked for that were read, in [0, 1]."""
    return sum(one.matched for one in comparisons) / sum(one.asked for one in comparisons)


def word_f1(comparisons: Sequence[Comparison]) -> float:
    """The harmonic mean of `word_accuracy` and of the share of the words read that were asked for, in [0, 1]."""
    words = sum(one.asked + one.read for one in comparisons)
    return 2 * sum(one.matched for one in comparisons) / words


def character_error_rate(comparisons: Sequence[Comparison]) -> float:
    """Edits per character asked for: 0 is perfect, and text that nobody asked for can make it larger than 1."""
    return sum(one.edits for one in comparisons) / sum(one.characters for one in comparisons)


def tesseract_reader() -> Reader:
    """Tesseract in this process through tesserocr if that is installed, else the program `tesseract`.

    Tesseract expects print on a page. A coloured board in a scene is nearest to that in one of the colour channels, so
    it reads each of them and the grey picture, with two ways each to tell ink from paper; where readings differ, the
    surest counts. Of the words on 100 drawn signs at 256² this finds 54 %, and one reading of the picture 19 %.

    Raises MissingDependency if there is neither, or no English language data.
    """
    folder = _language_folder()
    if folder is not None and find_spec("tesserocr") is not None:
        recognise = _library(folder)
    elif shutil.which("tesseract") is not None:
        recognise = _run_program
    else:
        raise MissingDependency(
            "reading words needs tesseract and its English data, which are not installed; "
            "install Debian's tesseract-ocr (apt-get install tesseract-ocr), or leave the words' figures out"
        )

    def read(image: NDArray[np.uint8]) -> str:
        picture = _resized(image)
        views = [picture.convert("L"), *picture.split()]
        tables = [recognise(view, threshold) for view in views for threshold in _THRESHOLDS]
        found = [word for table in tables for word in _found_words(table)]
        return " ".join(word.text for word in _in_reading_order(_surest_words(found)))

    return read


@dataclass(frozen=True)
class _FoundWord:
    """A word and its box in pixels; how sure tesseract is, in [0, 100]."""

    text: str
    left: int
    top: int
    right: int
    bottom: int
    confidence: float

    def overlaps(self, other: _FoundWord) -> bool:
        across = min(self.right, other.right) > max(self.left, other.left)
        return across and min(self.bottom, other.bottom) > max(self.top, other.top)


def _found_words(table: str) -> list[_FoundWord]:
    """Tesseract's table (TSV) → the words in it, all of them."""
    words = []
    for line in table.splitlines():
        level, *_, left, top, width, height, confidence, text = line.split("\t")
        if level == "5":  # a word's row
            x, y = int(left), int(top)
            words.append(_FoundWord(text, x, y, x + int(width), y + int(height), float(confidence)))
    return words


def _surest_words(words: Sequence[_FoundWord]) -> list[_FoundWord]:
    """Those that are sure enough, one in a place."""
    kept: list[_FoundWord] = []
    for word in sorted(words, key=lambda word: -word.confidence):
        if word.confidence >= _SUREST and not any(map(word.overlaps, kept)):
            kept.append(word)
    return kept


def _in_reading_order(words: Sequence[_FoundWord]) -> list[_FoundWord]:
    """Line by line; a word whose middle is not below the line's first word is in its line."""
    lines: list[list[_FoundWord]] = []
    for word in sorted(words, key=lambda word: word.top + word.bottom):
        if lines and (word.top + word.bottom) / 2 < lines[-1][0].bottom:
            lines[-1].append(word)
        else:
            lines.append([word])
    return [word for line in lines for word in sorted(line, key=lambda word: word.left)]


def _language_folder() -> Path | None:
    """Where the program's package put its data; tesserocr brings the library alone."""
    named = os.environ.get("TESSDATA_PREFIX")
    shared = Path("/usr/share")
    folders = [Path(named)] if named else [*shared.glob("tesseract-ocr/*/tessdata"), shared / "tessdata"]
    return next((folder for folder in folders if (folder / f"{_LANGUAGE}.traineddata").is_file()), None)


def _library(folder: Path) -> Callable[[Image.Image, str], str]:
    import tesserocr

    library = tesserocr.PyTessBaseAPI(path=f"{folder}/", lang=_LANGUAGE, psm=_SPARSE_TEXT)
    library.SetVariable("user_defined_dpi", str(_DPI))
    library.SetVariable("debug_file", os.devnull)  # it tells the terminal of every picture without text

    def recognise(picture: Image.Image, threshold: str) -> str:
        library.SetVariable("thresholding_method", threshold)
        library.SetImage(picture)
        return str(library.GetTSVText(0))

    return recognise


def _run_program(picture: Image.Image, threshold: str) -> str:
    png = io.BytesIO()
    picture.save(png, "PNG")
    options = ["-l", _LANGUAGE, "--psm", str(_SPARSE_TEXT), "--dpi", str(_DPI)]
    options += ["-c", f"thresholding_method={threshold}", "tsv"]
    result = subprocess.run(
        ["tesseract", "stdin", "stdout", *options], input=png.getvalue(), capture_output=True, check=False
    )
    if result.returncode:
        reason = first_line(Exception(result.stderr.decode(errors="replace")))
        raise PixArtSigmaError(
            f"tesseract failed ({reason}); check that `tesseract --list-langs` names {_LANGUAGE}"
        )
    return result.stdout.decode()


def _resized(image: NDArray[np.uint8]) -> Image.Image:
    picture = Image.fromarray(image)
    factor = _SHORTER_SIDE / min(picture.size)
    size = (round(picture.width * factor), round(picture.height * factor))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
