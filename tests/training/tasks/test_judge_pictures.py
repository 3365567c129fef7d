import numpy as np
import torch

from pixart_sigma.data.drawn import ImagePool, SceneRecord
from pixart_sigma.training.recipe.process import RunRecipe
from pixart_sigma.training.tasks.judge_pictures import NUM_DRAWS, JudgePictures, roughen

RUN = RunRecipe(steps=1, batch_size=4)
STILL = [0.5, 0.5, 0.5, 0.0, 0.0]


def pool(side: int, values: list[int], first_seed: int) -> ImagePool:
    images = np.stack([np.full((side, side, 3), value, dtype=np.uint8) for value in values])
    records = [SceneRecord(first_seed + index, "", "", "", {}) for index in range(len(values))]
    return ImagePool(images, records)


def pictures() -> JudgePictures:
    return JudgePictures([pool(128, [0, 51], 10), pool(256, [102, 255], 20)])


def test_pictures_of_all_sizes_are_taken_in_order() -> None:
    pixels = pictures().take(torch.tensor([3, 0, 2]))
    assert pixels.shape == (3, 3, 128, 128)
    torch.testing.assert_close(pixels[:, 0, 5, 7], torch.tensor([1.0, -1.0, -0.2]), atol=1e-5, rtol=0)


def test_a_part_is_a_slice_of_the_batch() -> None:
    indices, pixels = pictures().roughened(RUN, 3, range(4))
    some, part = pictures().roughened(RUN, 3, range(1, 3))
    assert torch.equal(indices[1:3], some)
    assert torch.equal(pixels[1:3], part)
    names = pictures().ids(RUN, 3, range(4))
    assert names == [f"scene-{(10, 11, 20, 21)[index]}" for index in indices]


def roughened(pixels: torch.Tensor, draws: list[float]) -> torch.Tensor:
    assert len(draws) == NUM_DRAWS
    noise = torch.rand(pixels.shape, generator=torch.Generator().manual_seed(0))
    return roughen(pixels, torch.tensor([draws]), noise)


def test_a_still_picture_stays_as_it_is() -> None:
    pixels = torch.rand(1, 3, 32, 32) * 2 - 1
    before = pixels.clone()
    torch.testing.assert_close(roughened(pixels, STILL), pixels, atol=1e-5, rtol=0)
    roughened(pixels, [0.0, 0.9, 0.9, 0.9, 0.9])
    assert torch.equal(pixels, before)


def test_each_draw_does_its_own() -> None:
    pixels = torch.rand(1, 3, 32, 32) * 1.8 - 0.9
    shifted = roughened(pixels, [0.0, 0.999, *STILL[2:]])
    torch.testing.assert_close(shifted[..., 6:, :-6], pixels[..., :-6, 6:], atol=1e-5, rtol=0)
    assert (roughened(pixels, [*STILL[:2], 0.0, *STILL[3:]]) > pixels).all()
    assert (roughened(pixels, [*STILL[:2], 0.99, *STILL[3:]]) < pixels).all()
    assert roughened(pixels, [*STILL[:3], 0.99, 0.0]).var() < 0.5 * pixels.var()
    difference = (roughened(pixels, [*STILL[:4], 0.99]) - pixels).abs()
    assert 0.02 < difference.mean() < 0.1
    assert roughened(torch.ones(1, 3, 8, 8), [0.0, 0.0, 0.0, 0.9, 0.9]).abs().max() <= 1
