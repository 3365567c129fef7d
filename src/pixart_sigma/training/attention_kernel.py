"""Which attention kernel a training step takes.

Knows nothing of models; a function of the device, the number of image tokens and the dtype.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

FUSED_FROM_TOKENS = 600
"""On a CPU, in bf16; in fp32 the fused kernel is never slower (`pixart-sigma benchmark attention`)."""
FUSED = (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION)


def attention_kernel(device_type: str, num_tokens: int, dtype: torch.dtype) -> AbstractContextManager[None]:
    """Within, attention takes the fastest kernel for `num_tokens` image tokens, forward and backward.

    On a CPU the fused kernel's backward pass is slow in bf16 on few tokens, where attention is written out. Elsewhere
    torch chooses, among all.
    """
    if device_type == "cpu" and dtype == torch.bfloat16 and num_tokens < FUSED_FROM_TOKENS:
        return written_out()
    # MATH is for what no fused kernel takes.
    return sdpa_kernel([*FUSED, SDPBackend.MATH])


@contextmanager
def written_out() -> Iterator[None]:
    """Within, attention is two matrix products in the dtype of its inputs, and the scores are kept.

    By itself torch would compute bf16 products in fp32, on a CPU at a quarter of the speed.
    """
    before = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)  # concerns the CPU as well
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(before)
