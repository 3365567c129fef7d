import io
from itertools import product

import numpy as np
import pytest
import resvg_py
from numpy.typing import NDArray
from PIL import Image

from pixart_sigma.world.objects import PAINTS, thing_svg
from pixart_sigma.world.scene import COLOURS, KINDS, STYLES

NIGHT, SNOW = "#16123a", "#eef5fb"


def draw(elements: str, ground: str, size: int = 64) -> NDArray[np.int64]:
    """One unit box in the middle of a picture that is 1.25 boxes wide."""
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size}" height="{size}" viewBox="-.625 -1.125 1.25 1.25">'
        f'<rect x="-1" y="-2" width="2" height="4" fill="{ground}"/>{elements}</svg>'
    )
    png = resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True)
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGB")).astype(int)


def rgb(colour: str) -> NDArray[np.int64]:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])


def covered(picture: NDArray[np.int64], ground: str) -> NDArray[np.bool_]:
    return np.abs(picture - rgb(ground)).sum(-1) > 24


def test_every_colour_has_a_paint() -> None:
    assert tuple(PAINTS) == COLOURS


@pytest.mark.parametrize("kind", KINDS)
def test_things_fill_their_box_and_stay_inside(kind: str) -> None:
    for style in STYLES:
        picture = covered(draw(thing_svg(kind, "red", style, 0), SNOW, 100), SNOW)
        rows, columns = np.flatnonzero(picture.any(1)), np.flatnonzero(picture.any(0))
        assert max(np.ptp(rows), np.ptp(columns)) > 70  # the box is 80 pixels wide
        assert min(*rows, *columns) >= 6
        assert max(*rows, *columns) <= 94


@pytest.mark.parametrize("kind", KINDS)
def test_a_thing_is_mostly_of_its_colour(kind: str) -> None:
    # Every pixel votes for the colour with the nearest tone.
    tones = np.array([[rgb(tone) for tone in (p.light, p.base, p.dark)] for p in PAINTS.values()])
    for colour, style in product(COLOURS, STYLES):
        picture = draw(thing_svg(kind, colour, style, 0), "#00ffff")
        pixels = picture[covered(picture, "#00ffff")]
        nearest = np.abs(pixels[:, None, None] - tones).sum(-1).min(-1).argmin(-1)
        votes = np.bincount(nearest, minlength=len(COLOURS))
        if style == "ink":  # outlines are nearly black
            votes[COLOURS.index("black")] //= 2
        assert COLOURS[votes.argmax()] == colour, (colour, style)


@pytest.mark.parametrize(("colour", "ground"), [("white", SNOW), ("black", NIGHT)])
def test_white_shows_on_snow_and_black_at_night(colour: str, ground: str) -> None:
    for kind, style in product(KINDS, STYLES):
        contrast = np.abs(draw(thing_svg(kind, colour, style, 0), ground) - rgb(ground)).sum(-1)
        assert (contrast > 120).sum() > 90, (kind, style)


def test_kinds_look_different_in_one_colour() -> None:
    for style in STYLES:
        pictures = [draw(thing_svg(kind, "blue", style, 0), SNOW, 32) for kind in KINDS]
        for i, first in enumerate(pictures):
            for second in pictures[i + 1 :]:
                union = covered(first, SNOW) | covered(second, SNOW)
                assert np.abs(first - second).sum(-1)[union].mean() > 90


@pytest.mark.parametrize("kind", KINDS)
def test_a_finer_level_adds_to_the_same_drawing(kind: str) -> None:
    for style in ("flat", "ink", "gradient"):
        levels = [thing_svg(kind, "green", style, detail) for detail in range(3)]
        assert len(levels[0]) < len(levels[1]) < len(levels[2])
        coarse, middle, fine = (draw(level, SNOW, 256) for level in levels)
        assert np.abs(coarse - middle).sum(-1).mean() > 0.1
        assert np.abs(middle - fine).sum(-1).mean() > 0.03
        assert np.abs(coarse - fine).sum(-1).mean() < 30
    assert thing_svg(kind, "green", "pixel", 2) == thing_svg(kind, "green", "pixel", 0)


def test_styles_differ() -> None:
    pictures = [draw(thing_svg("cat", "orange", style, 0), SNOW) for style in ("flat", "ink", "gradient")]
    for i, first in enumerate(pictures):
        for second in pictures[i + 1 :]:
            assert np.abs(first - second).sum(-1).mean() > 8


def test_gradients_of_one_name_are_equal() -> None:
    definitions: dict[str, str] = {}
    for kind, colour in product(KINDS, COLOURS):
        head = thing_svg(kind, colour, "gradient", 2).partition("</defs>")[0].removeprefix("<defs>")
        for definition in head.replace("Gradient><", "Gradient>\n<").splitlines():
            name = definition.partition('id="')[2].partition('"')[0]
            assert definitions.setdefault(name, definition) == definition


def test_coarse_drawings_are_cheap() -> None:
    for kind, colour, style in product(KINDS, COLOURS, STYLES):
        assert thing_svg(kind, colour, style, 0).count("<path") <= 16
