import pytest
import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from comparison import relative_error
from pixart_sigma.training.attention_kernel import FUSED_FROM_TOKENS, attention_backends


def kernel_of(num_tokens: int, dtype: torch.dtype) -> str:
    """The autograd node of attention under the rule, which tells the kernel."""
    queries = torch.randn(1, 2, num_tokens, 8, dtype=dtype, requires_grad=True)
    with sdpa_kernel(attention_backends("cpu", num_tokens, dtype)):
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


@pytest.mark.parametrize("num_tokens", [1, 64, 4096])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_gpu_chooses_itself(num_tokens: int, dtype: torch.dtype) -> None:
    backends = attention_backends("cuda", num_tokens, dtype)
    assert {
        SDPBackend.FLASH_ATTENTION,
        SDPBackend.EFFICIENT_ATTENTION,
        SDPBackend.CUDNN_ATTENTION,
        SDPBackend.MATH,
    } == set(backends)


def test_what_no_fused_kernel_takes_is_computed_all_the_same() -> None:
    # fp64, and an additive mask per head.
    queries, mask = torch.randn(1, 2, 4, 8, dtype=torch.float64), torch.randn(1, 2, 4, 4, dtype=torch.float64)
    with sdpa_kernel(attention_backends("cpu", 300, torch.float64)):
        attended = F.scaled_dot_product_attention(queries, queries, queries, attn_mask=mask)
    scores = queries @ queries.mT / 8**0.5 + mask
    assert relative_error(attended, scores.softmax(-1) @ queries) < 1e-9
