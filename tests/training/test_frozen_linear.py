import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from comparison import relative_error
from pixart_sigma.errors import MissingDependency
from pixart_sigma.model import PixArtTransformer
from pixart_sigma.products import Linear
from pixart_sigma.training.frozen_linear import FrozenLinear, Storage, freeze_linears
from tiny_pipeline import TRANSFORMER

STORAGES = ("bf16", "int8", "nf4")
# Half a step of each: bf16 has 8 bits, int8 127 levels up to a row's largest weight; nf4's widest gap is 0.304 of a
# block's largest. On top of int8 and nf4, what bitsandbytes rounds before and after.
LARGEST_ERROR = {"bf16": 2**-8, "int8": 0.5 / 127 + 2**-11, "nf4": 0.152 + 1e-3}
# Rows are whole blocks of nf4, and are not.
SHAPES = ((48, 40), (128, 24), (24, 24), (96, 5))


@pytest.fixture
def linear() -> nn.Linear:
    return nn.Linear(48, 40)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_weight_is_the_given_one_to_half_a_step(shape: tuple[int, int], storage: Storage) -> None:
    linear = nn.Linear(*shape)
    frozen = FrozenLinear(linear, storage)
    error = (frozen.weight - linear.weight).abs()
    assert frozen.weight.dtype == torch.float32
    assert 0 < error.max() <= LARGEST_ERROR[storage] * linear.weight.abs().max()
    assert torch.equal(frozen.bias, linear.bias)


def test_a_weight_takes_a_quarter_or_less(linear: nn.Linear) -> None:
    sizes = {
        storage: sum(buffer.nbytes for buffer in FrozenLinear(linear, storage).buffers())  # type: ignore[arg-type]
        for storage in STORAGES
    }
    elements = linear.weight.numel()
    assert sizes == {"bf16": 2 * elements, "int8": elements + 4 * 40, "nf4": elements / 2 + 4 * elements / 64}


@pytest.mark.parametrize("storage", ["int8", "nf4"])
def test_the_values_are_those_of_bitsandbytes_own_layers(storage: Storage) -> None:
    import bitsandbytes

    linear = nn.Linear(128, 40)  # rows of whole blocks: with others its own layer is wrong on the CPU
    if storage == "int8":
        layer = bitsandbytes.nn.Linear8bitLt(128, 40, has_fp16_weights=False)
    else:
        layer = bitsandbytes.nn.Linear4bit(128, 40, compress_statistics=False, quant_type="nf4")
    layer.load_state_dict(linear.state_dict())
    # This is when it quantises; in evaluation, int8 would round the tokens, too.
    layer = layer.to("cpu").train()
    tokens = torch.randn(7, 128, requires_grad=True)
    assert relative_error(FrozenLinear(linear, storage)(tokens), layer(tokens)) <= 1e-5


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("shape", [(3, 48), (2, 5, 48)])
def test_forward_and_backward_are_those_of_the_stored_weight(
    linear: nn.Linear, storage: Storage, shape: tuple[int, ...]
) -> None:
    frozen = FrozenLinear(linear, storage)
    tokens = torch.randn(shape).requires_grad_()
    same = tokens.detach().clone().requires_grad_()
    output, expected = frozen(tokens), F.linear(same, frozen.weight, frozen.bias)
    gradient = torch.randn_like(output)
    output.backward(gradient)
    expected.backward(gradient)
    assert tokens.grad is not None
    assert same.grad is not None
    assert relative_error(output, expected) <= 1e-6
    assert relative_error(tokens.grad, same.grad) <= 1e-6


@pytest.mark.parametrize("storage", STORAGES)
def test_autocast_computes_in_bf16_and_changes_nothing(linear: nn.Linear, storage: Storage) -> None:
    frozen = FrozenLinear(linear, storage)
    before = [tensor.clone() for tensor in (*frozen.buffers(), frozen.bias)]
    for mode in (True, False):
        tokens = torch.randn(3, 48).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            output = frozen.train(mode)(tokens)
        assert output.dtype == torch.bfloat16
        output.sum().backward()
        assert tokens.grad is not None
        assert tokens.grad.dtype == torch.float32
        expected = F.linear(tokens, frozen.weight, frozen.bias)
        assert relative_error(output.float(), expected) <= 2e-2
    after = [*frozen.buffers(), frozen.bias]
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))


@pytest.mark.parametrize("storage", STORAGES)
def test_the_linear_layers_of_the_blocks_alone_are_replaced(storage: Storage) -> None:
    model = PixArtTransformer(TRANSFORMER)
    linears = {name for name, module in model.named_modules() if isinstance(module, Linear)}
    model.requires_grad_(False)
    freeze_linears(model, storage)
    frozen = {name for name, module in model.named_modules() if isinstance(module, FrozenLinear)}
    assert frozen == {name for name in linears if name.startswith("transformer_blocks.")}
    assert len(frozen) == 10 * TRANSFORMER.num_layers
    assert model.proj_out.weight.dtype == model.pos_embed.proj.weight.dtype == torch.float32


def test_what_is_trained_is_not_replaced() -> None:
    model = PixArtTransformer(TRANSFORMER).requires_grad_(False)
    model.transformer_blocks[0].attn1.to_q.requires_grad_(True)
    freeze_linears(model, "bf16")
    linears = {
        name for name, module in model.transformer_blocks.named_modules() if isinstance(module, Linear)
    }
    assert linears == {"0.attn1.to_q"}


def test_fp32_stays_as_it_is() -> None:
    model = PixArtTransformer(TRANSFORMER).requires_grad_(False)
    before = list(model.parameters())
    freeze_linears(model, "fp32")
    assert all(old is new for old, new in zip(before, model.parameters(), strict=True))


def test_the_missing_package_is_named(linear: nn.Linear, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingDependency, match=r"^lora\.base nf4 needs the package bitsandbytes; [^\n]*$"):
        FrozenLinear(linear, "nf4")
