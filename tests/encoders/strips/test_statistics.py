import pytest
import torch
from torch import nn

from comparison import relative_error
from pixart_sigma.encoders.strips.statistics import Statistics, normalize_


def normalized_in_strips(picture: torch.Tensor, norm: nn.GroupNorm, rows: int) -> torch.Tensor:
    statistics = Statistics(picture.shape[2])
    for strip in picture.split(rows):
        statistics.add(strip)
    result = picture.clone()
    with torch.no_grad():
        normalize_(result, statistics.affine(norm), activate=False)
    return result


def exactly(picture: torch.Tensor, norm: nn.GroupNorm) -> torch.Tensor:
    with torch.no_grad():
        return norm.double()(picture.double().permute(2, 0, 1)[None])[0].permute(1, 2, 0).float()


@pytest.mark.parametrize("rows", [1, 5, 64])
def test_strips_are_normalized_like_the_whole(rows: int) -> None:
    picture = torch.randn(61, 83, 12) * torch.arange(1, 13) + torch.linspace(0, 4, 61)[:, None, None]
    norm = nn.GroupNorm(3, 12, eps=1e-6)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    assert relative_error(normalized_in_strips(picture, norm, rows), exactly(picture, norm)) <= 2e-6


def test_a_mean_far_from_zero_costs_no_digits() -> None:
    # In a sum of plain squares in fp32, a deviation of 1 is lost beside a mean of 5000.
    picture = torch.randn(64, 64, 4) + 5000
    norm = nn.GroupNorm(2, 4)
    statistics = Statistics(4)
    for strip in picture.split(7):
        statistics.add(strip)
    assert statistics.count == 64 * 64
    variance = statistics.squares / statistics.count
    assert relative_error(variance, picture.double().var((0, 1), correction=0)) <= 1e-4
    scale, _ = statistics.affine(norm)
    grouped = picture.double().view(-1, 2, 2)
    expected = (grouped.var((0, 2), correction=0) + norm.eps).rsqrt().repeat_interleave(2).float()
    assert relative_error(scale, expected) <= 1e-4


def test_bf16_is_normalized_in_fp32() -> None:
    picture = torch.randn(16, 16, 8).bfloat16()
    norm = nn.GroupNorm(2, 8)
    expected = exactly(picture.float(), norm).bfloat16()
    assert relative_error(normalized_in_strips(picture, norm.float(), 3).float(), expected.float()) <= 2**-8
