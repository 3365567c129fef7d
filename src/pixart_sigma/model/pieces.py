"""What a block does to each token by itself, done to a piece of the tokens at a time where memory counts.

Legend: B batch, N image tokens, D width.
Without gradients a block's widest values, the hidden layer of its MLP above all, are needed for one piece only. The
results are equal to rounding. With gradients, and for as many rows as a picture of 1024 px has, nothing is cut.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pixart_sigma.model.activation_memory import are_many, piece_tokens


def cut(tokens: Tensor) -> bool:
    """Whether tokens (B, N, D) are worked on in pieces."""
    return not torch.is_grad_enabled() and are_many(tokens.shape[0], tokens.shape[1])


def in_pieces(function: Callable[[Tensor], Tensor], tokens: Tensor) -> Tensor:
    """The function, which makes a token (B, any, D) from the same token alone, on all of (B, N, D).

    Where tokens are cut, each piece is written over what it was made from: they must be the caller's own.
    """
    if not cut(tokens):
        return function(tokens)
    for piece in tokens.split(piece_tokens(tokens.shape[0]), dim=1):
        piece.copy_(function(piece))
    return tokens
