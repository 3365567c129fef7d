"""Ours with one optimisation turned off at a time, to see what each gives.

The library has no such switches; a step is put together here with other parts than the trainer's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

from pixart_sigma.model import attention as model_attention


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


@contextmanager
def attention(choice: Literal["rule", "fused", "plain"]) -> Iterator[None]:
    """Within, training attends so, whatever the model's rule says."""
    rule = model_attention.writes_out
    if choice != "rule":
        model_attention.writes_out = lambda *_: choice == "plain"
    try:
        yield
    finally:
        model_attention.writes_out = rule
