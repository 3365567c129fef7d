import io
import string

import numpy as np
import pytest
import resvg_py
from numpy.typing import NDArray
from PIL import Image

from pixart_sigma.errors import InvalidInput
from pixart_sigma.world.lettering import word_svg
from pixart_sigma.world.scene import WORDS


def written(text: str, width: float = 2.0, height: float = 1.0) -> NDArray[np.bool_]:
    """Where the word's ink is, in a picture of 240 x 120 pixels around the origin, 2 x 1 units."""
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="240" height="120" viewBox="-1 -.5 2 1">'
        f"{word_svg(text, width, height, '#ffffff')}</svg>"
    )
    png = resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True)
    return np.asarray(Image.open(io.BytesIO(bytes(png))))[..., 3] > 127


@pytest.mark.parametrize("text", ["I", "WELCOME", "ICE", "TAXI", "Q", "SIGMA"])
def test_a_word_touches_the_nearer_sides_of_its_box_from_the_middle(text: str) -> None:
    ink = written(text, 1.5, 0.5)
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    height, width = int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1
    assert height <= 60 + 3  # Q's tail hangs a little lower
    assert width <= 180 + 1
    assert height >= 56 or width >= 170
    assert (columns[0] + columns[-1]) / 2 == pytest.approx(119.5, abs=2.5)
    assert (rows[0] + rows[-1]) / 2 == pytest.approx(59.5, abs=2.5)


def test_letters_differ() -> None:
    pictures = {letter: written(letter) for letter in string.ascii_uppercase}
    for first in pictures:
        for second in pictures:
            if first < second:
                union = pictures[first] | pictures[second]
                assert (pictures[first] ^ pictures[second]).sum() > 0.08 * union.sum(), (first, second)


def test_neighbouring_letters_do_not_touch() -> None:
    for word in WORDS:
        if {"A", "V", "W", "T", "Y", "L"} & set(word):
            continue  # these may lean over each other
        columns = written(word, 1.9, 0.9).any(0)
        gaps = int((np.diff(columns.astype(int)) == 1).sum()) - 1 + int(columns[0])
        assert gaps == len(word) - 1, word


@pytest.mark.parametrize("text", ["", "open", "50 %"])
def test_what_has_no_letters_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="capitals"):
        word_svg(text, 1, 1, "#000000")
