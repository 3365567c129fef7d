import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from comparison import relative_error
from pixart_sigma.training.attention_kernel import FUSED_FROM_TOKENS, attention_kernel, written_out


def kernel_of(num_tokens: int, dtype: torch.dtype) -> str:
    """The autograd node of attention under the rule, which tells the kernel."""
    queries = torch.randn(1, 2, num_tokens, 8, dtype=dtype, requires_grad=True)
    with attention_kernel("cpu", num_tokens, dtype):
        attended = F.scaled_dot_product_attention(queries, queries, queries)
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
def test_few_tokens_in_bf16_are_attended_without_the_fused_kernel(
    num_tokens: int, dtype: torch.dtype, kernel: str
) -> None:
    assert kernel_of(num_tokens, dtype) == kernel


def allowed() -> set[str]:
    asked = {
        "flash": torch.backends.cuda.flash_sdp_enabled,
        "efficient": torch.backends.cuda.mem_efficient_sdp_enabled,
        "cudnn": torch.backends.cuda.cudnn_sdp_enabled,
        "math": torch.backends.cuda.math_sdp_enabled,
    }
    return {name for name, enabled in asked.items() if enabled()}


@pytest.mark.parametrize("num_tokens", [1, 64, 4096])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_gpu_chooses_itself(num_tokens: int, dtype: torch.dtype) -> None:
    with attention_kernel("cuda", num_tokens, dtype):
        assert allowed() == {"flash", "efficient", "cudnn", "math"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_written_out_it_is_attention_in_the_dtype_of_its_inputs(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    queries, keys, values = torch.randn(3, 2, 4, 64, 32, generator=generator).unbind()
    mask = torch.arange(64) < torch.tensor([40, 64])[:, None, None, None]

    def attention(dtype: torch.dtype) -> list[Tensor]:
        inputs = [tokens.to(dtype).requires_grad_() for tokens in (queries, keys, values)]
        attended = F.scaled_dot_product_attention(*inputs, attn_mask=mask)
        attended.backward(torch.ones_like(attended) * queries.to(dtype))
        return [attended, *(tokens.grad for tokens in inputs)]

    exact = attention(torch.float64)
    with written_out():
        found = attention(dtype)
    # bf16 has eight bits.
    most = 1e-5 if dtype == torch.float32 else 2e-2
    for ours, theirs in zip(found, exact, strict=True):
        assert ours.dtype == dtype
        assert relative_error(ours, theirs) < most


def test_what_was_allowed_before_is_allowed_afterwards() -> None:
    before = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed(), allowed()
    with written_out():
        assert allowed() == {"math"}
    assert (torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed(), allowed()) == before


def test_what_no_fused_kernel_takes_is_computed_all_the_same() -> None:
    # fp64, and an additive mask per head.
    queries, mask = torch.randn(1, 2, 4, 8, dtype=torch.float64), torch.randn(1, 2, 4, 4, dtype=torch.float64)
    with attention_kernel("cpu", 300, torch.float64):
        attended = F.scaled_dot_product_attention(queries, queries, queries, attn_mask=mask)
    scores = queries @ queries.mT / 8**0.5 + mask
    assert relative_error(attended, scores.softmax(-1) @ queries) < 1e-9
