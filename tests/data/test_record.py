import hashlib

import pytest
from PIL import Image

from encoded_pictures import encoded, noisy
from pixart_sigma.data.images import CorruptImage
from pixart_sigma.data.record import Caption, NoCaption, record_from_bytes


def test_a_record_keeps_the_file_and_strips_the_captions() -> None:
    image = noisy(20, 30, kind="JPEG")
    given = [Caption(" a house\n", "short"), Caption(" ", "empty"), Caption("a red house", "dense")]
    record = record_from_bytes("a", image, given)
    assert record.captions == (Caption("a house", "short"), Caption("a red house", "dense"))
    assert (record.key, record.height, record.width) == ("a", 20, 30)
    assert record.image == image
    assert record.sha256 == hashlib.sha256(image).hexdigest()


def test_the_size_is_that_of_the_upright_picture() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = encoded(Image.new("RGB", (30, 20)), "JPEG", exif=exif)
    record = record_from_bytes("a", image, [Caption("a", "text")])
    assert (record.height, record.width) == (30, 20)
    assert record.image == image


@pytest.mark.parametrize("captions", [[], [Caption("  \n", "text")]])
def test_a_record_has_a_caption(captions: list[Caption]) -> None:
    with pytest.raises(NoCaption, match=r"^no caption$"):
        record_from_bytes("a", noisy(), captions)


def test_a_record_has_a_whole_picture() -> None:
    with pytest.raises(CorruptImage, match="truncated"):
        record_from_bytes("a", noisy(200, 200, kind="JPEG")[:5000], [Caption("a", "text")])
