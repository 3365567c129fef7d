"""The null caption, which caption dropout puts in a caption's place.

Legend: B batch, L caption tokens, K rows of the null embedding, C channels of the text encoder.
Two conventions, which train different models. `own`: the null caption has its own tokens and mask, as in diffusers.
`caption`: its first rows stand under the mask of the caption that they replace, as in the official code.
Knows nothing of which captions are dropped.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from pixart_sigma.errors import InvalidInput
from pixart_sigma.training.surgery import Change, describe

NullMask = Literal["own", "caption"]


def null_caption_change(null: Tensor) -> Change:
    """The line of the log of surgery that says of the null embedding (K, C) that it was made."""
    return Change(
        "null_caption", "made", f"{describe(null)}; the text encoder's output for the empty caption"
    )


def put_null_captions(
    embeddings: Tensor,
    mask: Tensor,
    drop: Tensor,
    null: Tensor,
    convention: NullMask,
    null_length: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The null caption in the place of the dropped ones → (embeddings, mask), new tensors.

    embeddings (B, L, C), mask (B, L) bool, True on real tokens, drop (B,) bool, null (K, C).
    `own`: a dropped caption becomes the first null_length rows of null (all K, if None), all real; L grows to
    null_length where it is shorter. `caption`: it becomes the first L rows of null under the mask it has.
    Differentiable in embeddings and null. Raises InvalidInput for shapes that do not fit, an unknown convention, a
    null_length that is not in null or would be ignored, and a dropped caption that is longer than null.
    """
    if convention not in get_args(NullMask):
        raise InvalidInput(
            f"unknown null caption convention {convention!r}; one of {', '.join(get_args(NullMask))}"
        )
    _check_shapes(embeddings, mask, drop, null)
    null = null.to(embeddings.device, embeddings.dtype)
    mask, drop = mask.bool(), drop.to(embeddings.device).bool()
    if convention == "own":
        count = len(null) if null_length is None else null_length
        if not 1 <= count <= len(null):
            raise InvalidInput(f"null_length is {count}; the null embedding has 1 to {len(null)} rows")
        missing = max(count - embeddings.shape[1], 0)
        embeddings, mask = F.pad(embeddings, (0, 0, 0, missing)), F.pad(mask, (0, missing), value=False)
        null = null[:count]
        own_mask = torch.arange(embeddings.shape[1], device=mask.device) < count
        mask = torch.where(drop[:, None], own_mask, mask)
    else:
        if null_length is not None:
            raise InvalidInput(
                f"null_length {null_length} would be ignored: 'caption' keeps the caption's mask; leave it out"
            )
        mask = mask.clone()
        if bool(mask[drop, len(null) :].any()):
            longest = int(mask[drop].sum(1).max())
            raise InvalidInput(
                f"a dropped caption has {longest} tokens, the null embedding {len(null)} rows; "
                "make it for the captions' length (caption_length)"
            )
    length = embeddings.shape[1]
    null = F.pad(null[:length], (0, 0, 0, max(length - len(null), 0)))
    return torch.where(drop[:, None, None], null, embeddings), mask


def _check_shapes(embeddings: Tensor, mask: Tensor, drop: Tensor, null: Tensor) -> None:
    fits = (
        embeddings.ndim == 3
        and mask.shape == embeddings.shape[:2]
        and drop.shape == embeddings.shape[:1]
        and null.ndim == 2
        and null.shape[1] == embeddings.shape[2]
    )
    if not fits:
        raise InvalidInput(
            f"embeddings {tuple(embeddings.shape)}, mask {tuple(mask.shape)}, drop {tuple(drop.shape)} and null "
            f"{tuple(null.shape)} do not fit; they must be (B, L, C), (B, L), (B,) and (K, C)"
        )
