"""Attention in tiles against attention in fp64, and who takes it."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from graphs import compiled_in_graphs
from pixart_sigma import tiled_attention
from pixart_sigma.model.attention import attend, written_out
from pixart_sigma.tiled_attention import attend_in_tiles, takes


def tokens(num_queries: int, num_keys: int, sharpness: float = 1, head_dim: int = 24) -> tuple[Tensor, ...]:
    """bf16, in memory as (B, N, D), as the model makes them. Scores have the variance sharpness⁴."""
    generator = torch.Generator().manual_seed(num_queries)
    shapes = [(num_queries, sharpness), (num_keys, sharpness), (num_keys, 1)]
    flat = (torch.randn(2, num, 3 * head_dim, generator=generator) * scale for num, scale in shapes)
    return tuple(each.bfloat16().unflatten(-1, (3, -1)).transpose(1, 2) for each in flat)


def error(found: Tensor, exact: Tensor) -> float:
    """Root mean square of the difference over that of the exact."""
    return float((found.double() - exact).norm() / exact.norm())


@pytest.fixture(params=[(1024, 2048), (16, 40), (80, 210)], ids=["one tile", "tiles", "two heads and one"])
def tile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled_attention, "TILE", request.param)


@pytest.mark.usefixtures("tile")
@pytest.mark.parametrize("sharpness", [0.5, 1, 2.5, 5])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("head_dim", [24, 30])
def test_it_is_as_exact_as_bf16_allows(sharpness: float, masked: bool, head_dim: int) -> None:
    queries, keys, values = tokens(50, 130, sharpness, head_dim)
    mask = torch.arange(130) < torch.tensor([70, 130])[:, None, None, None] if masked else None
    exact = F.scaled_dot_product_attention(queries.double(), keys.double(), values.double(), attn_mask=mask)
    found = attend_in_tiles(queries, keys, values, mask)
    assert (found.shape, found.stride()) == (queries.shape, queries.stride())
    assert found.dtype == torch.bfloat16
    assert error(found, exact) < 3 * error(exact.bfloat16(), exact)


def test_the_largest_score_is_what_makes_it_exact() -> None:
    queries, keys, values = tokens(50, 130, 5)
    exact = F.scaled_dot_product_attention(queries.double(), keys.double(), values.double())
    assert error(written_out(queries, keys, values), exact) > 5 * error(
        attend_in_tiles(queries, keys, values), exact
    )


def test_the_compiler_knows_its_result() -> None:
    mask = torch.arange(130).expand(2, 1, 1, 130) < 100
    torch.library.opcheck(tiled_attention._operation, (*tokens(20, 130), mask))


def test_padding_may_hold_anything() -> None:
    queries, keys, values = tokens(20, 130)
    mask = torch.arange(130).expand(2, 1, 1, 130) < 100
    found = attend_in_tiles(queries, keys, values, mask)
    keys[:, :, 100:], values[:, :, 100:] = 1e4, torch.nan
    assert torch.equal(attend_in_tiles(queries, keys, values, mask), found)


def test_it_is_for_inference_in_bf16_on_a_cpu_that_multiplies_it(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, keys, _ = tokens(20, tiled_attention.LEAST_KEYS)
    monkeypatch.setattr(tiled_attention, "MULTIPLIES_BF16", True)
    assert not takes(queries, keys)
    with torch.no_grad():
        assert takes(queries, keys)
        assert not takes(queries, keys[:, :, 1:])
        assert not takes(queries.float(), keys.float())
        assert not takes(queries.to("meta"), keys.to("meta"))
        monkeypatch.setattr(tiled_attention, "MULTIPLIES_BF16", False)
        assert not takes(queries, keys)


def test_the_model_takes_it_compiled_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled_attention, "MULTIPLIES_BF16", True)
    queries, keys, values = tokens(20, 130)
    compiled, graphs = compiled_in_graphs(attend)
    with torch.no_grad():
        expected = attend_in_tiles(queries, keys, values)
        assert torch.equal(attend(queries, keys, values), expected)
        assert torch.equal(compiled(queries, keys, values), expected)
        assert torch.equal(tiled_attention.attend(queries, keys, values), expected)
    assert ["pixart_sigma.attend_in_tiles" in graph for graph in graphs] == [True]
    found = tiled_attention.attend(queries, keys, values)
    assert torch.equal(found, F.scaled_dot_product_attention(queries, keys, values))
