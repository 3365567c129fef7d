import numpy as np
import torch

from pixart_sigma.evaluation.judges.backbone import Backbone, judge_pixels


def checkerboard(side: int) -> np.ndarray:
    return (np.indices((side, side)).sum(0) % 2 * 255).astype(np.uint8)[None, ..., None].repeat(3, -1)


def test_pixels_of_128_are_taken_as_they_are() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), dtype=np.uint8)
    pixels = judge_pixels(images)
    expected = torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1
    torch.testing.assert_close(pixels, expected)


def test_larger_pictures_are_averaged() -> None:
    # Without antialiasing a fine checkerboard turns into stripes.
    pixels = judge_pixels(checkerboard(512))
    assert pixels.shape == (1, 3, 128, 128)
    assert pixels.abs().max() < 0.05


def test_any_shape_is_squeezed() -> None:
    image = np.zeros((1, 64, 256, 3), dtype=np.uint8)
    image[:, :, 128:] = 255
    pixels = judge_pixels(image)
    assert pixels.shape == (1, 3, 128, 128)
    assert (pixels[..., :60] == -1).all()
    assert (pixels[..., 68:] == 1).all()


def test_the_map_is_8_by_8_and_a_picture_is_seen_alone() -> None:
    backbone = Backbone((8, 16, 24), (1, 0, 2))
    pixels = torch.randn(3, 3, 128, 128)
    with torch.no_grad():
        together = backbone(pixels)
        alone = backbone(pixels[1:2])
    assert together.shape == (3, 24, 8, 8)
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-4)
