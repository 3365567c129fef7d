import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from comparison import relative_error
from pixart_sigma.model.attention import FUSED_FROM_TOKENS, attend, writes_out, written_out


def tokens(num_tokens: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(num_tokens)
    # In memory as (B, N, D), as the model makes them.
    flat = torch.randn(3, 2, num_tokens, 4 * 32, generator=generator).to(dtype)
    return tuple(each.unflatten(-1, (4, 32)).transpose(1, 2).requires_grad_() for each in flat)  # type: ignore[return-value]


def kernel_of(num_tokens: int, dtype: torch.dtype) -> str:
    """The autograd node of attention, which tells the kernel."""
    attended = attend(*tokens(num_tokens, dtype))
    return "fused" if "Flash" in type(attended.grad_fn).__name__ else "plain"


@pytest.mark.parametrize(
    ("num_tokens", "dtype", "kernel"),
    [
        (64, torch.bfloat16, "plain"),
        (FUSED_FROM_TOKENS - 1, torch.bfloat16, "plain"),
        (FUSED_FROM_TOKENS, torch.bfloat16, "fused"),
        (1024, torch.bfloat16, "fused"),
        (64, torch.float32, "fused"),
        (1024, torch.float32, "fused"),
    ],
)
def test_training_writes_attention_to_few_tokens_out_in_bf16(
    num_tokens: int, dtype: torch.dtype, kernel: str
) -> None:
    assert kernel_of(num_tokens, dtype) == kernel


@pytest.mark.parametrize("num_tokens", [1, 64, 4096])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_gpu_chooses_itself(num_tokens: int, dtype: torch.dtype) -> None:
    assert not writes_out("cuda", num_tokens, dtype)


def test_inference_never_writes_it_out() -> None:
    queries, keys, values = tokens(64, torch.bfloat16)
    with torch.no_grad():
        attended = attend(queries, keys, values)
        assert torch.equal(attended, F.scaled_dot_product_attention(queries, keys, values))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("masked", [False, True])
def test_written_out_it_is_attention_in_the_dtype_of_its_inputs(dtype: torch.dtype, masked: bool) -> None:
    mask = torch.arange(64) < torch.tensor([40, 64])[:, None, None, None] if masked else None

    def results(dtype: torch.dtype, exact: bool) -> list[Tensor]:
        inputs = [each.detach().to(dtype).requires_grad_() for each in tokens(64, torch.float32)]
        attention = F.scaled_dot_product_attention if exact else written_out
        attended = attention(*inputs, mask)
        attended.backward(inputs[0].detach())
        return [attended, *(each.grad for each in inputs if each.grad is not None)]

    # bf16 has eight bits.
    most = 1e-5 if dtype == torch.float32 else 2e-2
    for found, exact in zip(results(dtype, exact=False), results(torch.float64, exact=True), strict=True):
        assert found.dtype == dtype
        assert relative_error(found, exact) < most


def test_a_compiled_model_follows_the_rule_at_every_size() -> None:
    compiled = torch.compile(lambda *parts: attend(*parts), backend="aot_eager")
    for num_tokens in (64, 96, FUSED_FROM_TOKENS + 8, 80, FUSED_FROM_TOKENS + 64):
        found, expected = (function(*tokens(num_tokens, torch.bfloat16)) for function in (compiled, attend))
        assert torch.equal(found, expected)
