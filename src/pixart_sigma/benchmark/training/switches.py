"""Ours with one optimisation turned off at a time, to see what each gives.

The library has no such switches; a step is put together here with other parts than the trainer's.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch.nn.attention import sdpa_kernel

from pixart_sigma.training.attention_kernel import FUSED, attention_kernel, written_out


@dataclass(frozen=True)
class Switches:
    """How a training step of ours runs; the defaults are the trainer's.

    `attention`: by the trainer's rule, or one kernel always. `padded_captions`: all to 300 tokens, as plain scripts
    do. `fused_optimizer`: one kernel for AdamW. `keep_memory`: freed blocks stay with the process (`allocator.py`).
    """

    attention: Literal["rule", "fused", "plain"] = "rule"
    padded_captions: bool = False
    fused_optimizer: bool = True
    keep_memory: bool = True
    compiled: bool = False


ABLATIONS = {
    "attention fused": replace(Switches(), attention="fused"),
    "attention written out": replace(Switches(), attention="plain"),
    "captions padded to 300": replace(Switches(), padded_captions=True),
    "AdamW not fused": replace(Switches(), fused_optimizer=False),
    "memory handed back": replace(Switches(), keep_memory=False),
    "blocks compiled": replace(Switches(), compiled=True),
}


def kernel(
    choice: Literal["rule", "fused", "plain"], device_type: str, num_tokens: int, dtype: torch.dtype
) -> AbstractContextManager[None]:
    """Within, attention takes this one; on a GPU "fused" leaves the choice among the fused ones to torch."""
    if choice == "rule":
        return attention_kernel(device_type, num_tokens, dtype)
    return written_out() if choice == "plain" else sdpa_kernel([*FUSED])
