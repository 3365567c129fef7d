import io
from itertools import product

import numpy as np
import pytest
import resvg_py
from numpy.typing import NDArray
from PIL import Image

from pixart_sigma.world.objects import PAINTS
from pixart_sigma.world.scene import COLOURS, STYLES, WORDS, Sign
from pixart_sigma.world.signs import sign_svg

BOX = {"sign": (-0.5, -1.0, 0.5, 0.0), "banner": (-0.5, 0.0, 0.5, 0.22)}


def draw(sign: Sign, style: str, detail: int = 0) -> NDArray[np.int64]:
    """RGBA, 200 pixels a unit: x from -0.6 to 0.6, y from -1.1 to 0.3."""
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="240" height="280" viewBox="-.6 -1.1 1.2 1.4">'
        f"{sign_svg(sign, style, detail)}</svg>"
    )
    png = resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True)
    return np.asarray(Image.open(io.BytesIO(bytes(png)))).astype(int)


def near(picture: NDArray[np.int64], colour: str) -> int:
    tone = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int(((np.abs(picture[..., :3] - tone).sum(-1) < 40) & (picture[..., 3] > 200)).sum())


@pytest.mark.parametrize("kind", ["sign", "banner"])
def test_signs_stay_in_their_box(kind: str) -> None:
    left, top, right, bottom = BOX[kind]
    for colour, style in product(COLOURS, STYLES):
        solid = draw(Sign(kind, colour, "WELCOME", "left"), style)[..., 3] > 127
        rows, columns = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
        rim = 12  # outlines and rims may stand out a little
        assert 120 + 200 * left - rim <= columns[0] <= 120 + 200 * left + rim
        assert 120 + 200 * right - rim <= columns[-1] <= 120 + 200 * right + rim
        assert 220 + 200 * top - rim <= rows[0]
        assert rows[-1] <= 220 + 200 * bottom + rim


@pytest.mark.parametrize("kind", ["sign", "banner"])
def test_a_sign_has_its_colour_and_its_word(kind: str) -> None:
    for colour in COLOURS:
        picture = draw(Sign(kind, colour, "OPEN", "left"), "flat")
        assert near(picture, PAINTS[colour].base) > 3000
        assert near(picture, PAINTS[colour].mark) > 400


def test_words_and_styles_show() -> None:
    drawings = {sign_svg(Sign("banner", "red", word, "top"), style, 0) for word in WORDS for style in STYLES}
    assert len(drawings) >= len(WORDS) * (len(STYLES) - 1)  # flat and pixel art may be drawn alike
    for kind in BOX:
        levels = [sign_svg(Sign(kind, "blue", "OPEN", "left"), "flat", detail) for detail in range(3)]
        assert len(levels[0]) < len(levels[1]) < len(levels[2])


def test_lettering_stands_out_from_its_board() -> None:
    def luminance(colour: str) -> float:
        linear = [(int(colour[i : i + 2], 16) / 255) ** 2.2 for i in (1, 3, 5)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for paint in PAINTS.values():
        light, dark = sorted((luminance(paint.base), luminance(paint.mark)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 3.8, paint.name
