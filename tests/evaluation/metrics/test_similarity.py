import math

import numpy as np
import pytest
from numpy.typing import NDArray

from pixart_sigma.errors import InvalidInput
from pixart_sigma.evaluation.metrics.similarity import psnr, ssim

RANDOM = np.random.default_rng(0)


def picture(height: int = 14, width: int = 17) -> NDArray[np.uint8]:
    return RANDOM.integers(0, 256, (height, width, 3), dtype=np.uint8)


def plain_ssim(found: NDArray[np.uint8], wanted: NDArray[np.uint8]) -> float:
    """The paper's formula, place by place."""
    weights = np.array(
        [[math.exp(-((row - 5) ** 2 + (column - 5) ** 2) / 4.5) for column in range(11)] for row in range(11)]
    )
    weights /= weights.sum()
    values = []
    for channel in range(3):
        for top in range(found.shape[0] - 10):
            for left in range(found.shape[1] - 10):
                x, y = (
                    each[top : top + 11, left : left + 11, channel].astype(float) for each in (found, wanted)
                )
                mean_x, mean_y = (weights * x).sum(), (weights * y).sum()
                variance_x = (weights * (x - mean_x) ** 2).sum()
                variance_y = (weights * (y - mean_y) ** 2).sum()
                covariance = (weights * (x - mean_x) * (y - mean_y)).sum()
                c1, c2 = 2.55**2, 7.65**2
                values.append(
                    (2 * mean_x * mean_y + c1)
                    * (2 * covariance + c2)
                    / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))
                )
    return float(np.mean(values))


def test_equal_pictures_are_as_like_as_can_be() -> None:
    one = picture()
    assert psnr(one, one) == math.inf
    assert ssim(one, one) == pytest.approx(1, abs=1e-12)


def test_ssim_is_the_papers_formula() -> None:
    one, other = picture(), picture()
    mixed = (0.7 * one + 0.3 * other).astype(np.uint8)
    for found in (other, mixed, 255 - one):
        assert ssim(found, one) == pytest.approx(plain_ssim(found, one), abs=1e-9)
    assert ssim(255 - one, one) < 0 < ssim(other, one) + 0.5 < ssim(mixed, one) + 0.5
    assert ssim(mixed, one) == pytest.approx(ssim(one, mixed), abs=1e-12)


def test_of_flat_pictures_only_the_brightness_counts() -> None:
    dark, light = (np.full((11, 11, 3), value, np.uint8) for value in (100, 150))
    assert ssim(dark, light) == pytest.approx((2 * 100 * 150 + 2.55**2) / (100**2 + 150**2 + 2.55**2))


def test_psnr_is_of_the_largest_value() -> None:
    one = np.zeros((4, 4, 3), np.uint8)
    other = one.copy()
    other[0, 0, 0] = 200
    assert psnr(other, one) == pytest.approx(10 * math.log10(255**2 * 48 / 200**2))
    assert psnr(one, other) == psnr(other, one)


def test_what_cannot_be_compared_is_refused() -> None:
    for metric in (psnr, ssim):
        with pytest.raises(InvalidInput, match=r"cannot be compared; make both of one size"):
            metric(picture(14, 17), picture(17, 14))
    with pytest.raises(InvalidInput, match="pictures of 16x10 has no window of 11x11"):
        ssim(picture(10, 16), picture(10, 16))
