import pytest
import torch
from torch import Tensor, nn

from comparison import relative_error
from pixart_sigma.encoders.group_norm import GroupNorm


def filled(norm: nn.GroupNorm) -> nn.GroupNorm:
    for parameter in norm.parameters():
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    return norm


def exact(norm: nn.GroupNorm, pictures: Tensor) -> Tensor:
    norm = filled(nn.GroupNorm(norm.num_groups, norm.num_channels, norm.eps)).double()
    return norm(pictures.double().contiguous())


@pytest.mark.parametrize(("height", "width"), [(384, 512), (131, 257), (2, 20_000)])
def test_large_pictures_in_channels_last_order_are_normed_exactly(height: int, width: int) -> None:
    pictures = torch.randn(2, 8, height, width, generator=torch.Generator().manual_seed(0)) + 3
    pictures = pictures.contiguous(memory_format=torch.channels_last)
    norm = filled(GroupNorm(4, 8, 1e-6))
    with torch.no_grad():
        normed = norm(pictures)
        expected = exact(norm, pictures)
    assert relative_error(normed, expected) <= 1e-5
    assert normed.is_contiguous(memory_format=torch.channels_last)


def test_torchs_own_loses_digits_there() -> None:
    """If this fails, torch has mended its kernel and the module can go."""
    picture = torch.randn(1, 8, 1024, 1024, generator=torch.Generator().manual_seed(0)) + 3
    picture = picture.contiguous(memory_format=torch.channels_last)
    norm = filled(nn.GroupNorm(4, 8, 1e-6))
    with torch.no_grad():
        assert relative_error(norm(picture), exact(norm, picture)) > 3e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_are_torchs(dtype: torch.dtype) -> None:
    picture = torch.randn(1, 8, 192, 192).to(dtype).contiguous(memory_format=torch.channels_last)
    norm = filled(GroupNorm(4, 8, 1e-6)).to(dtype)
    with torch.no_grad():
        assert torch.equal(norm(picture), nn.GroupNorm.forward(norm, picture))


def test_gradients_flow() -> None:
    picture = torch.randn(1, 8, 192, 192).contiguous(memory_format=torch.channels_last).requires_grad_()
    GroupNorm(4, 8)(picture).sum().backward()
    assert picture.grad is not None
