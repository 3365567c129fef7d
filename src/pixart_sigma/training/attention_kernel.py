"""Which attention kernel a training step takes.

Knows nothing of models; a function of the device, the number of image tokens and the dtype.
"""

from __future__ import annotations

import torch
from torch.nn.attention import SDPBackend

FUSED_FROM_TOKENS = 192
"""On a CPU, in bf16. Forward and backward, time written out over fused, one thread of AMD EPYC with avx512_bf16: 0.6 at
64 tokens, 1.1 at 256, 1.3 at 1024; fused in fp32 is never slower, 1.5 at 64 (`pixart-sigma benchmark attention`)."""


def attention_backends(device_type: str, num_tokens: int, dtype: torch.dtype) -> list[SDPBackend]:
    """For `torch.nn.attention.sdpa_kernel`: the fastest kernel for `num_tokens` image tokens, forward and backward.

    On a CPU the fused kernel's backward pass is slow in bf16 on few tokens, where attention written out (which keeps
    the scores) is taken. Elsewhere torch chooses, among all. The order says nothing.
    """
    if device_type == "cpu" and dtype == torch.bfloat16 and num_tokens < FUSED_FROM_TOKENS:
        return [SDPBackend.MATH]
    # MATH is for what no fused kernel takes.
    return [
        SDPBackend.FLASH_ATTENTION,
        SDPBackend.EFFICIENT_ATTENTION,
        SDPBackend.CUDNN_ATTENTION,
        SDPBackend.MATH,
    ]
