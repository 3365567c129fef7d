import numpy as np

from pixart_sigma.evaluation.patches import patches


def test_a_patch_has_the_pictures_own_pixels_at_a_place_of_its_own() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 40, 56, 3), dtype=np.uint8)
    taken = patches(images, 24, first=5)
    assert taken is not None
    assert taken.shape == (3, 24, 24, 3)
    for image, patch in zip(images, taken, strict=True):
        assert patch.tobytes() in {
            image[top : top + 24, left : left + 24].tobytes() for top in range(17) for left in range(33)
        }
    alone = patches(images[2:], 24, first=7)
    assert alone is not None
    assert np.array_equal(taken[2], alone[0])
    other = patches(images[2:], 24, first=8)
    assert other is not None
    assert not np.array_equal(alone, other)


def test_pictures_that_are_no_larger_have_none() -> None:
    images = np.zeros((2, 24, 56, 3), np.uint8)
    assert patches(images, 24, first=0) is None
    assert patches(images, 32, first=0) is None


def test_patches_tell_fine_pictures_from_enlarged_ones() -> None:
    fine = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    enlarged = fine[:, ::2, ::2].repeat(2, 1).repeat(2, 2)

    def sharpness(images: np.ndarray) -> float:
        taken = patches(images, 24, first=0)
        assert taken is not None
        return float(np.abs(np.diff(taken.astype(float), axis=2)).mean())

    assert sharpness(enlarged) < 0.6 * sharpness(fine)
