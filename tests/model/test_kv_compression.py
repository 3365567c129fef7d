"""Compression operators against their definition, spelt out in loops over the windows."""

import pytest
import torch
from torch.nn import functional as F

from comparison import relative_error
from pixart_sigma.errors import InvalidInput
from pixart_sigma.model import KVCompression
from pixart_sigma.model.kv_compression import KVCompressor, num_kept_tokens, replicated_grid

WINDOWS = [(1, 2), (2, 1), (2, 2), (3, 3), (4, 4)]
GRIDS = [(12, 12), (9, 7), (4, 8), (1, 5)]  # divided by every window; by few; by some; narrower than most
WIDTH = 6


def windows_of(tokens, grid, window):
    """tokens (B, N, D) → list over windows, row by row, of (B, window area, D), edges replicated."""
    rows, columns = grid
    image = tokens.reshape(len(tokens), rows, columns, -1)
    result = []
    for top in range(0, rows, window[0]):
        for left in range(0, columns, window[1]):
            inside = [
                image[:, min(top + i, rows - 1), min(left + j, columns - 1)]
                for i in range(window[0])
                for j in range(window[1])
            ]
            result.append(torch.stack(inside, dim=1))
    return result


def random_tokens(grid):
    return torch.randn(2, grid[0] * grid[1], WIDTH, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("norm", [True, False])
def test_conv(window, grid, norm):
    torch.manual_seed(0)
    compressor = KVCompressor(KVCompression(window, "conv", (0,), norm=norm), WIDTH)
    for parameter in compressor.parameters():
        torch.nn.init.normal_(parameter)
    tokens = random_tokens(grid)
    kernel = compressor.conv.weight.reshape(WIDTH, -1).T
    expected = torch.stack(
        [(w * kernel).sum(1) + compressor.conv.bias for w in windows_of(tokens, grid, window)], 1
    )
    if norm:
        expected = F.layer_norm(expected, (WIDTH,), compressor.norm.weight, compressor.norm.bias)
    assert relative_error(compressor.mix(tokens, grid), expected) <= 1e-5
    assert compressor.select(tokens, grid, None) is tokens
    assert ("norm.weight" in compressor.state_dict()) is norm


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("grid", GRIDS)
def test_average(window, grid):
    compressor = KVCompressor(KVCompression(window, "average", (0,)), WIDTH)
    tokens = random_tokens(grid)
    expected = torch.stack([w.mean(1) for w in windows_of(tokens, grid, window)], 1)
    assert relative_error(compressor.mix(tokens, grid), expected) <= 1e-5
    assert compressor.select(tokens, grid, None) is tokens
    assert not compressor.state_dict()


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("grid", GRIDS)
def test_nearest(window, grid):
    compressor = KVCompressor(KVCompression(window, "nearest", (0,)), WIDTH)
    tokens = random_tokens(grid)
    expected = torch.stack([w[:, 0] for w in windows_of(tokens, grid, window)], 1)
    assert torch.equal(compressor.select(tokens, grid, None), expected)
    assert compressor.mix(tokens, grid) is tokens


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("grid", GRIDS)
def test_discard(window, grid):
    compressor = KVCompressor(KVCompression(window, "discard", (0,)), WIDTH)
    tokens = random_tokens(grid)
    rows, columns = replicated_grid(grid, window)
    kept = torch.stack([torch.randperm(rows * columns)[: num_kept_tokens(grid, window)] for _ in range(2)])
    selected = compressor.select(tokens, grid, kept)
    for sample in range(2):
        for place, position in enumerate(kept[sample].tolist()):
            row, column = min(position // columns, grid[0] - 1), min(position % columns, grid[1] - 1)
            assert torch.equal(selected[sample, place], tokens[sample, row * grid[1] + column])
    shared = compressor.select(tokens, grid, kept[0])
    assert torch.equal(shared[0], selected[0])
    assert shared.shape == selected.shape
    assert compressor.mix(tokens, grid) is tokens


@pytest.mark.parametrize("kept", [None, torch.arange(3)])
def test_discard_needs_as_many_tokens_as_windows(kept):
    compressor = KVCompressor(KVCompression((2, 2), "discard", (0,)), WIDTH)
    with pytest.raises(InvalidInput, match="keeps 4 of this grid's tokens"):
        compressor.select(random_tokens((4, 4)), (4, 4), kept)


@pytest.mark.parametrize("norm", [True, False])
def test_conv_starts_as_the_average(norm):
    compressor = KVCompressor(KVCompression((2, 3), "conv", (0,), norm=norm), WIDTH)
    tokens = random_tokens((4, 6))
    average = KVCompressor(KVCompression((2, 3), "average", (0,)), WIDTH).mix(tokens, (4, 6))
    expected = F.layer_norm(average, (WIDTH,)) if norm else average
    assert relative_error(compressor.mix(tokens, (4, 6)), expected) <= 1e-5


def test_random_initialisation():
    compressor = KVCompressor(KVCompression((2, 2), "conv", (0,)), WIDTH)
    compressor.initialise_weights("random", torch.Generator().manual_seed(0))
    first = compressor.conv.weight.clone()
    assert first.std() > 0.1
    assert not compressor.conv.bias.any()
    compressor.initialise_weights("random", torch.Generator().manual_seed(0))
    assert torch.equal(first, compressor.conv.weight)
    compressor.initialise_weights("average")
    assert torch.equal(compressor.conv.weight, torch.full_like(first, 0.25))


@pytest.mark.parametrize("operator", ["conv", "average", "nearest", "discard"])
def test_small_grids_are_left_alone(operator):
    compressor = KVCompressor(KVCompression((2, 2), operator, (0,), from_tokens=24), WIDTH)
    small = random_tokens((4, 5))
    assert torch.equal(compressor.mix(compressor.select(small, (4, 5), None), (4, 5)), small)
    kept = torch.arange(6) if operator == "discard" else None
    assert compressor.mix(compressor.select(random_tokens((4, 6)), (4, 6), kept), (4, 6)).shape[1] == 6
