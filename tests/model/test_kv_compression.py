"""Compression operators against their definition, spelt out in loops over the windows."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from comparison import relative_error
from pixart_sigma.errors import InvalidInput
from pixart_sigma.model import KVCompression, TransformerConfig
from pixart_sigma.model.attention import SelfAttention
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


def compressed(compressor, tokens, grid, kept=None, projection=None, norm=None):
    """Keys or values of the tokens, which are left as they are if there is no projection."""
    windows = compressor.windows(tokens, grid, kept, norms=norm is not None)
    return compressor.compress(windows, projection or nn.Identity(), norm)


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
    assert relative_error(compressed(compressor, tokens, grid), expected) <= 1e-5
    assert ("norm.weight" in compressor.state_dict()) is norm


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("grid", GRIDS)
def test_average(window, grid):
    compressor = KVCompressor(KVCompression(window, "average", (0,)), WIDTH)
    tokens = random_tokens(grid)
    expected = torch.stack([w.mean(1) for w in windows_of(tokens, grid, window)], 1)
    assert relative_error(compressed(compressor, tokens, grid), expected) <= 1e-5
    assert not compressor.state_dict()


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("grid", GRIDS)
def test_nearest(window, grid):
    compressor = KVCompressor(KVCompression(window, "nearest", (0,)), WIDTH)
    tokens = random_tokens(grid)
    expected = torch.stack([w[:, 0] for w in windows_of(tokens, grid, window)], 1)
    assert torch.equal(compressed(compressor, tokens, grid), expected)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("grid", GRIDS)
def test_discard(window, grid):
    compressor = KVCompressor(KVCompression(window, "discard", (0,)), WIDTH)
    tokens = random_tokens(grid)
    rows, columns = replicated_grid(grid, window)
    kept = torch.stack([torch.randperm(rows * columns)[: num_kept_tokens(grid, window)] for _ in range(2)])
    selected = compressed(compressor, tokens, grid, kept)
    for sample in range(2):
        for place, position in enumerate(kept[sample].tolist()):
            row, column = min(position // columns, grid[0] - 1), min(position % columns, grid[1] - 1)
            assert torch.equal(selected[sample, place], tokens[sample, row * grid[1] + column])
    shared = compressed(compressor, tokens, grid, kept[0])
    assert torch.equal(shared[0], selected[0])
    assert shared.shape == selected.shape


@pytest.mark.parametrize("kept", [None, torch.arange(3)])
def test_discard_needs_as_many_tokens_as_windows(kept):
    compressor = KVCompressor(KVCompression((2, 2), "discard", (0,)), WIDTH)
    with pytest.raises(InvalidInput, match="keeps 4 of this grid's tokens"):
        compressor.windows(random_tokens((4, 4)), (4, 4), kept)


@pytest.mark.parametrize("norm", [True, False])
def test_conv_starts_as_the_average(norm):
    compressor = KVCompressor(KVCompression((2, 3), "conv", (0,), norm=norm), WIDTH)
    tokens = random_tokens((4, 6))
    average = compressed(KVCompressor(KVCompression((2, 3), "average", (0,)), WIDTH), tokens, (4, 6))
    expected = F.layer_norm(average, (WIDTH,)) if norm else average
    assert relative_error(compressed(compressor, tokens, (4, 6)), expected) <= 1e-5


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


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("with_norm", [True, False])
@pytest.mark.parametrize("operator", ["conv", "average", "nearest", "discard"])
def test_a_window_is_mixed_after_each_token_is_projected_and_normed(operator, with_norm, grid):
    """Whichever order is taken, and with it which matrix product."""
    torch.manual_seed(0)
    window = (2, 2)
    compressor = KVCompressor(KVCompression(window, operator, (0,)), WIDTH)
    for parameter in compressor.parameters():
        torch.nn.init.normal_(parameter)
    projection, norm = nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH) if with_norm else None
    tokens = random_tokens(grid)
    kept = torch.arange(num_kept_tokens(grid, window)) if operator == "discard" else None
    each = projection(tokens) if norm is None else norm(projection(tokens))
    expected = compressed(compressor, each, grid, kept)
    found = compressed(compressor, tokens, grid, kept, projection, norm)
    assert relative_error(found, expected) <= 1e-5


def gradients(compressor, projection, tokens, grid):
    projection.zero_grad()
    compressor.zero_grad()
    compressed(compressor, tokens, grid, projection=projection).square().sum().backward()
    return [parameter.grad.clone() for parameter in (*projection.parameters(), *compressor.parameters())]


def test_one_product_has_the_gradients_of_two():
    torch.manual_seed(0)
    compressor = KVCompressor(KVCompression((2, 2), "conv", (0,), norm=False), WIDTH)
    projection, tokens, grid = nn.Linear(WIDTH, WIDTH), random_tokens((8, 8)), (8, 8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KVCompressor, "_is_one_product", lambda *_: True)
        one = gradients(compressor, projection, tokens, grid)
        patch.setattr(KVCompressor, "_is_one_product", lambda *_: False)
        two = gradients(compressor, projection, tokens, grid)
    for found, expected in zip(one, two, strict=True):
        assert relative_error(found, expected) <= 1e-5


class Adapted(nn.Linear):
    """A layer that does more than its weight says, as adapters do."""

    def forward(self, tokens):
        return super().forward(tokens) + tokens.flip(-1)


def test_an_adapter_is_not_left_out():
    torch.manual_seed(0)
    compressor = KVCompressor(KVCompression((2, 2), "conv", (0,)), WIDTH)
    projection, tokens, grid = Adapted(WIDTH, WIDTH), random_tokens((8, 8)), (8, 8)
    expected = compressed(compressor, projection(tokens), grid)
    assert relative_error(compressed(compressor, tokens, grid, projection=projection), expected) <= 1e-5


def test_one_product_writes_no_projected_tokens(monkeypatch):
    """The projection itself is not called where the combined weights are the smaller tensor."""
    compressor = KVCompressor(KVCompression((2, 2), "conv", (0,)), WIDTH)
    projection = nn.Linear(WIDTH, WIDTH)
    monkeypatch.setattr(nn.Linear, "forward", lambda *_: pytest.fail("every token was projected"))
    compressed(compressor, random_tokens((8, 8)), (8, 8), projection=projection)


def test_weights_that_come_for_a_call_are_used_in_a_call():
    compressor = KVCompressor(KVCompression((2, 2), "conv", (0,)), WIDTH)
    projection, called = nn.Linear(WIDTH, WIDTH), []
    for layer in (projection, compressor.conv):
        layer.register_forward_pre_hook(lambda module, _: called.append(module))
    compressed(compressor, random_tokens((8, 8)), (8, 8), projection=projection)
    assert called == [projection, compressor.conv]


@pytest.mark.parametrize("operator", ["conv", "average", "nearest", "discard"])
def test_small_grids_are_left_alone(operator):
    compression = KVCompression((2, 2), operator, (0,), from_tokens=24)
    attention = SelfAttention(
        TransformerConfig(num_attention_heads=2, attention_head_dim=4), compressed=False
    )
    compressing = SelfAttention(
        TransformerConfig(num_attention_heads=2, attention_head_dim=4, kv_compression=compression),
        compressed=True,
    )
    compressing.load_state_dict(attention.state_dict(), strict=False)
    tokens = torch.randn(2, 20, 8)
    assert torch.equal(compressing(tokens, (4, 5), None), attention(tokens, (4, 5), None))
    kept = torch.arange(6) if operator == "discard" else None
    keys, values = compressing.keys_and_values(torch.randn(2, 24, 8), (4, 6), kept)
    assert keys.shape == values.shape == (2, 6, 8)
