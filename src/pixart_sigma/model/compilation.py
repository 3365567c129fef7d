"""Blocks compiled by torch, for training and for inference.

Knows nothing of what a block computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn


def compile_blocks(blocks: Iterable[nn.Module], backend: str | Callable[..., Any] = "inductor") -> None:
    """Compile each block's `forward`: in training after recompute_activations and before sharding.

    Blocks alike share what is compiled. Sizes that change make it be compiled a few times more, in the end for any
    size. torch keeps compiled code on disk for the next process. A block changed here cannot be deep-copied.
    """
    # Beyond 8 variants, by default, a block would silently be no longer compiled; buckets and captions make some 10.
    torch._dynamo.config.recompile_limit = 64
    for block in blocks:
        # The method and not the module: the hooks that gather a sharded block's weights stay outside.
        block.forward = torch.compile(block.forward, backend=backend)


def is_compiled(blocks: Iterable[nn.Module]) -> bool:
    """Whether `compile_blocks` has been there, or whoever else put another `forward` onto one of them."""
    return any("forward" in vars(block) for block in blocks)
