import io

import numpy as np
import pytest
import torch
from PIL import Image

from encoded_pictures import disc, encoded, noisy
from pixart_sigma.data.images import CorruptImage, bucket_crop, decode, to_pixels


@pytest.mark.parametrize("size", [(300, 400), (400, 300), (333, 777), (90, 64)])
@pytest.mark.parametrize("bucket", [(128, 128), (96, 160), (160, 80)])
def test_a_disc_stays_a_disc(size: tuple[int, int], bucket: tuple[int, int]) -> None:
    radius = 25
    cropped = bucket_crop(encoded(disc(*size, radius)), *bucket)
    assert (cropped.shape, cropped.dtype) == ((*bucket, 3), np.uint8)
    scale = max(bucket[0] / size[0], bucket[1] / size[1])
    ink = 1 - cropped[..., 0] / 255
    # Exact but for rounding to 256 levels, as long as the disc is whole: area and the spread along each side.
    if 2 * radius * scale < min(bucket) - 4:
        assert ink.sum() == pytest.approx(np.pi * (radius * scale) ** 2, rel=0.02)
        rows, columns = np.indices(bucket)
        spreads = [
            np.average((place - place[ink > 0.5].mean()) ** 2, weights=ink) for place in (rows, columns)
        ]
        assert spreads[0] == pytest.approx(spreads[1], rel=0.02)
        centre = [np.average(place, weights=ink) for place in (rows, columns)]
        assert centre == pytest.approx([(bucket[0] - 1) / 2, (bucket[1] - 1) / 2], abs=0.1)


def test_the_bucket_is_just_covered() -> None:
    # A ramp along the longer side: what is cut is the same at both ends, and nothing of the shorter side is.
    ramp = np.tile(np.linspace(0, 255, 401).round().astype(np.uint8), (100, 1))
    cropped = bucket_crop(encoded(Image.fromarray(ramp)), 50, 100)
    middle = cropped[25, :, 0].astype(float)
    assert middle[0] == pytest.approx(255 * 101 / 401, abs=2)
    assert middle[-1] == pytest.approx(255 * 300 / 401, abs=2)
    down = bucket_crop(encoded(Image.fromarray(ramp.T.copy())), 401 // 4 * 4, 100)
    assert down[:, 50, 0].min() <= 2
    assert down[:, 50, 0].max() >= 253


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied(orientation: int) -> None:
    corners = np.zeros((40, 60, 3), np.uint8)
    corners[:20, :30], corners[:20, 30:], corners[20:, :30] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    upright = Image.fromarray(corners)
    # The transpositions that undo the camera's, by the definition of EXIF's tag 0x0112.
    stored = {
        1: lambda image: image,
        2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda image: image.transpose(Image.Transpose.ROTATE_180),
        4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
        6: lambda image: image.transpose(Image.Transpose.ROTATE_90),
        7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
        8: lambda image: image.transpose(Image.Transpose.ROTATE_270),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(bucket_crop(encoded(stored, exif=exif), 40, 60), corners)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_all_formats_are_read(kind: str) -> None:
    image = Image.new("RGB", (32, 32), (200, 100, 50))
    assert bucket_crop(encoded(image, kind), 16, 16) == pytest.approx(
        np.full((16, 16, 3), (200, 100, 50)), abs=6
    )


def test_transparency_is_laid_over_white() -> None:
    clear = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    half = Image.new("RGBA", (16, 16), (0, 0, 0, 128))
    assert (bucket_crop(encoded(clear), 16, 16) == 255).all()
    assert bucket_crop(encoded(half), 16, 16) == pytest.approx(127, abs=1)
    palette = Image.new("P", (16, 16), 0)
    palette.putpalette([9, 9, 9] * 256)
    assert (bucket_crop(encoded(palette, transparency=0), 16, 16) == 255).all()
    assert (bucket_crop(encoded(palette), 16, 16) == 9).all()


def test_sixteen_bits_keep_their_range() -> None:
    grey = Image.fromarray(np.full((16, 16), 0x8080, np.uint16))
    assert (bucket_crop(encoded(grey), 16, 16) == 128).all()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a JPEG, PNG, WEBP or AVIF picture"),
        (b"hello", "not a JPEG"),
        (encoded(Image.new("RGB", (8, 8)), "GIF"), "not a JPEG"),
        (noisy(kind="JPEG")[:-400], "truncated"),
        (noisy(kind="PNG")[:600], "truncated"),
        (noisy(kind="WEBP")[:200], "decoder"),
    ],
)
def test_what_is_no_whole_picture_is_corrupt(content: bytes, reason: str) -> None:
    with pytest.raises(CorruptImage, match=reason) as raised:
        decode(content)
    assert "\n" not in str(raised.value)


def test_broken_exif_is_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Image.Image) -> Image.Exif:
        raise SyntaxError("not a TIFF file")

    monkeypatch.setattr(Image.Image, "getexif", broken)
    assert decode(encoded(Image.new("RGB", (8, 4)), "PNG")).size == (8, 4)


def test_pixels_are_between_minus_one_and_one() -> None:
    images = np.array([[[[0, 255, 51]]]], np.uint8)
    pixels = to_pixels(images, torch.device("cpu"))
    assert pixels.flatten().tolist() == pytest.approx([-1, 1, -0.6])
    assert to_pixels(np.zeros((2, 3, 5, 3), np.uint8), torch.device("cpu")).shape == (2, 3, 3, 5)


def test_the_stream_is_read_to_its_end() -> None:
    whole = noisy(200, 200, kind="JPEG")
    half = whole[: len(whole) // 2]
    assert Image.open(io.BytesIO(half)).size == (200, 200)  # its header is whole
    with pytest.raises(CorruptImage):
        decode(half)
