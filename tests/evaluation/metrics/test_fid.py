import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from pixart_sigma.errors import InvalidInput
from pixart_sigma.evaluation.metrics.fid import Statistics, frechet_distance, gaussian_statistics

NUM_FEATURES = 24


def features(num: int, seed: int, num_features: int = NUM_FEATURES) -> Tensor:
    """Correlated, of different spreads, and not about zero, as features are."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(num_features, num_features, generator=generator)
    spread = torch.logspace(-2, 0.5, num_features)
    return torch.randn(num, num_features, generator=generator) @ (mixing * spread) + seed


def scipys_distance(first: Tensor, second: Tensor) -> float:
    means = [one.double().numpy().mean(0) for one in (first, second)]
    covariances = [np.cov(one.double().numpy(), rowvar=False) for one in (first, second)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1])
    spread = np.trace(covariances[0] + covariances[1] - 2 * np.real(root))
    return float(((means[0] - means[1]) ** 2).sum() + spread)


def distance(first: Tensor, second: Tensor) -> float:
    return frechet_distance(gaussian_statistics([first]), gaussian_statistics([second]))


@pytest.mark.parametrize(
    ("num_first", "num_second"),
    [(200, 300), (10, 300), (10, 12), (2, 200)],
    ids=["full rank", "one of low rank", "both of low rank", "two pictures"],
)
# scipy warns that its matrix is singular, which is the point.
@pytest.mark.filterwarnings("ignore:.*singular:")
def test_it_is_scipys_to_a_millionth(num_first: int, num_second: int) -> None:
    first, second = features(num_first, 1), features(num_second, 2)
    assert distance(first, second) == pytest.approx(scipys_distance(first, second), rel=1e-6)


def test_fewer_pictures_than_features_lose_no_digits() -> None:
    # Two sets of rank 3 whose covariances have one known common direction, where all is known by hand.
    axes = torch.eye(50, dtype=torch.float64)
    zero = torch.zeros(50, dtype=torch.float64)
    first = Statistics(zero, torch.diag(axes[0] * 4 + axes[1] + axes[2] * 1e-6), 4)
    second = Statistics(zero + 1, torch.diag(axes[0] * 9 + axes[3]), 3)
    turned, _ = torch.linalg.qr(torch.randn(50, 50, dtype=torch.float64))
    rotated = [
        Statistics(turned @ one.mean, turned @ one.covariance @ turned.T, 3) for one in (first, second)
    ]
    expected = 50 + (4 + 1 + 1e-6) + (9 + 1) - 2 * (2 * 3)
    assert frechet_distance(*rotated) == pytest.approx(expected, abs=1e-9)


def test_a_set_has_no_distance_from_itself_and_the_order_does_not_count() -> None:
    first, second = features(40, 1), features(50, 2)
    assert distance(first, first) == pytest.approx(0, abs=1e-9)
    assert distance(first, second) == pytest.approx(distance(second, first), rel=1e-12)


def test_sets_without_any_spread_differ_by_their_means() -> None:
    first, second = torch.zeros(3, 4), torch.ones(5, 4)
    assert distance(first, second) == 4


def test_batches_give_what_all_pictures_together_give() -> None:
    all_features = features(101, 3) + 1e4
    together = gaussian_statistics([all_features])
    apart = gaussian_statistics(all_features.split(7))
    assert apart.num == together.num == 101
    assert torch.allclose(together.covariance, all_features.double().T.cov(), rtol=1e-10)
    assert torch.allclose(apart.mean, together.mean, rtol=1e-12)
    assert torch.allclose(apart.covariance, together.covariance, rtol=1e-9)
    assert apart.mean.dtype == apart.covariance.dtype == torch.float64


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "at least 2 pictures, not 0"),
        ([torch.zeros(1, 4)], "at least 2 pictures, not 1"),
        ([torch.zeros(2, 4), torch.zeros(2, 5)], "5 features follows one of 4"),
        ([torch.full((2, 4), torch.nan)], "must be finite"),
    ],
)
def test_features_that_have_no_statistics_are_refused(batches: list[Tensor], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        gaussian_statistics(batches)


def test_statistics_of_other_features_are_refused() -> None:
    with pytest.raises(InvalidInput, match="of 4 and of 5 features"):
        distance(torch.zeros(2, 4), torch.zeros(2, 5))
