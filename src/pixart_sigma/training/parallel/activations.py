"""Blocks that recompute their activations in the backward pass instead of keeping them.

That is put onto a block from outside, in place of its `forward`, so that parameter names stay as they are. Order:
recompute, compile, then shard. Knows nothing of what a block computes. A block changed here cannot be deep-copied.

`selective` keeps the results of matrix products and attention and recomputes the rest (modulation, norms, GELU), which
is cheap; `full` keeps a block's inputs alone and computes it twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import MethodType
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

_aten = torch.ops.aten
# By every name under which attention runs, on CPU and GPU.
_KEPT_RESULTS = [
    _aten.mm.default,
    _aten.addmm.default,
    _aten.bmm.default,
    _aten.baddbmm.default,
    _aten._scaled_dot_product_flash_attention.default,
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
    _aten._scaled_dot_product_efficient_attention.default,
    _aten._scaled_dot_product_cudnn_attention.default,
    _aten._scaled_dot_product_attention_math.default,
]
_keep_products = partial(create_selective_checkpoint_contexts, _KEPT_RESULTS)


def recompute_activations(blocks: Sequence[nn.Module], what: Literal["none", "selective", "full"]) -> None:
    """Change each block's `forward`; results and gradients stay the same."""
    forwards = {"none": None, "selective": _recomputing_cheap_parts, "full": _recomputing_all}
    forward = forwards[what]
    if forward is not None:
        for block in blocks:
            block.forward = MethodType(forward, block)


# The block is an argument and its class is asked for `forward`: a closure would be compiled anew for every block.
# Nothing here draws random numbers, so none need be drawn again alike.
def _recomputing_all(block: nn.Module, *inputs: Any, **named: Any) -> Any:
    return checkpoint(
        type(block).forward, block, *inputs, use_reentrant=False, preserve_rng_state=False, **named
    )


def _recomputing_cheap_parts(block: nn.Module, *inputs: Any, **named: Any) -> Any:
    return checkpoint(
        type(block).forward,
        block,
        *inputs,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=_keep_products,
        **named,
    )
