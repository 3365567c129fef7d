import numpy as np
from PIL import Image

from pixart_sigma.evaluation.precision.sheet import AMPLIFICATION, amplified_difference, draw_sheet


def plain(value: int, side: int = 32) -> np.ndarray:
    return np.full((side, side, 3), value, np.uint8)


def colours(sheet: Image.Image) -> set[tuple[int, ...]]:
    found = sheet.getcolors(2**20)
    assert found is not None
    # Of an area; letters and their edges are fewer pixels.
    return {colour for count, colour in found if count > 500}


def test_differences_are_amplified_whatever_their_sign_and_end_at_white() -> None:
    wanted = np.array([[[100, 100, 100]]], np.uint8)
    found = np.array([[[98, 101, 200]]], np.uint8)
    assert amplified_difference(found, wanted).tolist() == [[[16, 8, 255]]]
    assert amplified_difference(wanted, found).tolist() == [[[16, 8, 255]]]


def test_pictures_and_differences_are_on_the_sheet() -> None:
    columns = {
        "float32": [plain(100), plain(50)],
        "int8": [plain(103), plain(50)],
        "nf4": [plain(90), plain(55)],
    }
    sheet = draw_sheet(["a house", "a lake"], columns)
    grey = {100, 50, 103, 90, 55, 3 * AMPLIFICATION, 0, 10 * AMPLIFICATION, 5 * AMPLIFICATION, 255}
    assert colours(sheet) == {(value,) * 3 for value in grey}


def test_large_pictures_are_shown_smaller() -> None:
    small = draw_sheet(["a"], {"float32": [plain(1, 384)], "nf4": [plain(2, 384)]})
    large = draw_sheet(["a " * 500], {"float32": [plain(1, 2048)], "nf4": [plain(2, 2048)]})
    assert large.size == small.size
    wide = np.zeros((64, 4096, 3), np.uint8)
    assert draw_sheet([""], {"float32": [wide], "nf4": [wide]}).width == small.width
