import pytest
import torch

from comparison import relative_error
from pixart_sigma.model.embeddings import position_embedding, timestep_sinusoid

CPU = torch.device("cpu")


def test_every_square_grid_spans_the_same_positions():
    """256, 512, 1024 and 2K with their interpolation scales: token i of 16 is where token 8 i of 128 is."""
    small = position_embedding((16, 16), 16, base_grid=16, interpolation_scale=0.5, device=CPU).reshape(
        16, 16, -1
    )
    large = position_embedding((128, 128), 16, base_grid=128, interpolation_scale=4.0, device=CPU).reshape(
        128, 128, -1
    )
    assert relative_error(large[::8, ::8], small) <= 1e-12


OFFICIAL_SCALES = {256: 0.5, 512: 1.0, 1024: 2.0, 2048: 4.0, 2880: 5.625, 4096: 8.0}
"""The official interpolation for each base, which is its side / 512."""


@pytest.mark.parametrize("grid", [(256, 256), (180, 180), (135, 240), (192, 336)])
def test_a_large_picture_has_its_own_bases_positions_from_any_checkpoint(grid: tuple[int, int]) -> None:
    """Interpolation follows the size: what a checkpoint of 256 px computes for 4K is what one for 4K would."""
    embeddings = [
        position_embedding(grid, 16, base_grid=base // 16, interpolation_scale=scale, device=CPU)
        for base, scale in OFFICIAL_SCALES.items()
    ]
    for embedding in embeddings[:-1]:
        assert relative_error(embedding, embeddings[-1]) <= 1e-12


def test_the_official_positions_of_the_4k_base() -> None:
    """arange(g) / (g / base) / interpolation, here with g = base = 256 and interpolation 8: every 8th is whole."""
    row = position_embedding((256, 256), 16, 256, 8.0, CPU).reshape(256, 256, 2, 2, 4)[0, :, 0, 0, 0]
    assert relative_error(row, (torch.arange(256, dtype=torch.float64) / 8).sin()) <= 1e-12


def test_width_axis_comes_first():
    grid = position_embedding((3, 5), 16, 8, 1.0, CPU).reshape(3, 5, 2, 8)
    assert torch.equal(grid[:, :, 0], grid[:1, :, 0].expand(3, 5, 8))  # the first half ignores the row
    assert torch.equal(grid[:, :, 1], grid[:, :1, 1].expand(3, 5, 8))  # the second half the column
    assert not torch.equal(grid[0, 0, 0], grid[0, 1, 0])
    assert not torch.equal(grid[0, 0, 1], grid[1, 0, 1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_neighbouring_timesteps_stay_apart(dtype):
    """The sinusoid is taken in fp32: as half-precision numbers, many of the timesteps would coincide."""
    rows = timestep_sinusoid(torch.arange(1000)).to(dtype)
    assert len(rows.unique(dim=0)) == 1000


def test_fractional_timesteps_lie_between():
    rows = timestep_sinusoid(torch.tensor([500.0, 500.5, 501.0]))
    assert rows.dtype == torch.float32
    assert (rows[0] - rows[1]).norm() < (rows[0] - rows[2]).norm()
    assert not torch.equal(rows[0], rows[1])
