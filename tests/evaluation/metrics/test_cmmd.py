import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from pixart_sigma.errors import InvalidInput
from pixart_sigma.evaluation.metrics import cmmd as module
from pixart_sigma.evaluation.metrics.cmmd import cmmd


def embeddings(num: int, shift: float = 0.0) -> Tensor:
    return normalize(torch.randn(num, 8) + shift)


def naive_cmmd(first: Tensor, second: Tensor) -> float:
    def mean_kernel(rows: Tensor, columns: Tensor) -> float:
        total = 0.0
        for row in rows.double():
            for column in columns.double():
                total += math.exp(-float((row - column).square().sum()) / (2 * 10**2))
        return total / (len(rows) * len(columns))

    return 1000 * (mean_kernel(first, first) + mean_kernel(second, second) - 2 * mean_kernel(first, second))


@pytest.mark.parametrize("rows", [3, 1024])
def test_it_is_what_a_double_loop_gives(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ROWS", rows)
    first, second = embeddings(10), embeddings(7, 0.5)
    assert cmmd(first, second) == pytest.approx(naive_cmmd(first, second), rel=1e-9)


def test_equal_sets_have_no_distance_and_further_ones_a_larger() -> None:
    first = embeddings(20)
    assert cmmd(first, first) == pytest.approx(0, abs=1e-9)
    assert cmmd(first, embeddings(20, 0.3)) < cmmd(first, embeddings(20, 2.0))


def test_opposite_pictures_are_as_far_as_can_be() -> None:
    vector = torch.eye(4)[:1]
    assert cmmd(vector, -vector) == pytest.approx(1000 * (2 - 2 * math.exp(-4 / 200)))


def test_no_pictures_are_refused() -> None:
    with pytest.raises(InvalidInput, match="no pictures"):
        cmmd(embeddings(3), embeddings(0))
