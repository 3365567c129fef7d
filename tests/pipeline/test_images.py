import torch

from pixart_sigma.pipeline.images import to_image, to_uint8


def test_pixels_become_bytes() -> None:
    pixels = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]).expand(3, 1, 5)
    assert [pixel[0] for pixel in to_image(pixels).get_flattened_data()] == [0, 0, 128, 255, 255]


def test_a_batch_has_its_channels_last() -> None:
    pixels = torch.rand(2, 3, 4, 6) * 2 - 1
    levels = to_uint8(pixels)
    assert (levels.shape, levels.dtype) == ((2, 4, 6, 3), torch.uint8)
    assert levels[1].numpy().tobytes() == to_image(pixels[1]).tobytes()
