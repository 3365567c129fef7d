"""Products by oneDNN against torch's own, and who takes them."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from comparison import relative_error
from graphs import compiled_in_graphs
from pixart_sigma import TextToImage, products
from pixart_sigma.products import Linear, linear, product

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN"
)


def layer(bias: bool = True) -> Linear:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Linear(24, 40, bias=bias)


def rows(*shape: int) -> Tensor:
    return torch.randn(*shape, 24, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(), (1,), (7,), (2, 3), (0, 3), (2, 3, 4)])
def test_it_is_the_product(shape: tuple[int, ...], bias: bool) -> None:
    weights, given = layer(bias), rows(*shape)
    expected = F.linear(given, weights.weight, weights.bias)
    found = product(given, weights.weight.detach(), weights.bias)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected.detach())


def test_the_compiler_knows_its_result() -> None:
    torch.library.opcheck(products._operation, (rows(2, 3), layer().weight.detach()))


def test_rows_and_weights_may_be_views() -> None:
    weight = torch.randn(24, 40).T
    for given in (
        rows(8)[::2],
        rows(1, 4).expand(3, 4, 24),
        rows(1).expand(3, 24),
        torch.randn(24, 5).T,
        torch.randn(5, 48)[:, :24],
    ):
        assert relative_error(product(given, weight), F.linear(given, weight)) < 1e-5


@pytest.fixture
def faster(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The rows of every product, on a processor where it is the faster way."""
    seen: list[Tensor] = []

    def spy(given: Tensor, *others: Any) -> Tensor:
        seen.append(given)
        return product(given, *others)

    monkeypatch.setattr(products, "IS_FASTER", True)
    monkeypatch.setattr(products, "product", spy)
    return seen


def test_it_is_for_inference_in_fp32_on_a_cpu(faster: list[Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    weights = layer()
    weights(rows(3)).sum().backward()
    assert weights.weight.grad is not None
    with torch.no_grad():
        weights.bfloat16()(rows(3).bfloat16())
        weights.float()
        with torch.autocast("cpu", torch.bfloat16):
            assert weights(rows(3)).dtype == torch.bfloat16
        linear(rows(3).to("meta"), weights.weight.to("meta"))
        assert not faster
        weights(rows(3))
        assert len(faster) == 1
        monkeypatch.setattr(products, "IS_FASTER", False)
        weights(rows(3))
        assert len(faster) == 1


def test_weights_of_another_kind_multiply_themselves(faster: list[Tensor]) -> None:
    class Quantised(Tensor):
        pass

    with torch.no_grad():
        linear(rows(3), torch.randn(40, 24).as_subclass(Quantised))
    assert not faster


def test_the_layer_is_torchs_in_all_else() -> None:
    weights = layer()
    assert isinstance(weights, nn.Linear)
    plain = nn.Linear(24, 40)
    plain.load_state_dict(weights.state_dict())
    assert torch.equal(plain(rows(3)), weights(rows(3)))


def test_the_compiler_takes_it_as_one_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "IS_FASTER", True)
    weights = layer()
    compiled, graphs = compiled_in_graphs(weights)
    with torch.no_grad():
        assert torch.equal(compiled(rows(2, 3)), weights(rows(2, 3)))
    assert ["pixart_sigma.product" in graph for graph in graphs] == [True]


def test_every_part_of_a_pipeline_has_it() -> None:
    pipeline: Any = TextToImage.from_pretrained("pocket")
    for part in (pipeline.transformer, pipeline.text_encoder.model, pipeline.autoencoder.model):
        kinds = {type(module) for module in part.modules() if isinstance(module, nn.Linear)}
        assert kinds <= {Linear}  # the pocket autoencoder has none


def test_a_picture_needs_no_compiler() -> None:
    """Importing it takes a second, which an operation of one's own does when it is called."""
    script = """
import sys
from pixart_sigma import TextToImage, products, tiled_attention
products.IS_FASTER = tiled_attention.MULTIPLIES_BF16 = True
for dtype in ("float32", "bfloat16"):
    TextToImage.from_pretrained("pocket", dtype=dtype)("a red house", num_steps=1)
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
