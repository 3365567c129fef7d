"""A share of another model's weights in an export: what a fine-tune forgot comes back.

Source: Wortsman et al., Robust fine-tuning of zero-shot models, 2022, equation 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from pixart_sigma.errors import WeightsError
from pixart_sigma.weights.checkpoint import read_checkpoint
from pixart_sigma.weights.folder import find_pipeline


def read_other(model: Path, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The transformer of `model` (as for `generate --model`), of whose tensors `weights` has all, in equal shapes.

    Raises WeightsError if it has not.
    """
    other = dict(read_checkpoint(find_pipeline(model, parts=["transformer"]).transformer).state_dict)
    for name, theirs in other.items():
        ours = weights.get(name)
        if ours is None or ours.shape != theirs.shape:
            has = "no such tensor" if ours is None else list(ours.shape)
            raise WeightsError(
                f"export.blend.model {model} has {name} {list(theirs.shape)}, the trained model has {has}; name one "
                "of its ancestors"
            )
    return other


def blended(weights: Mapping[str, Tensor], other: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """share · other + (1 - share) · weights in fp32; tensors that `other` lacks stay as they are."""
    return {
        name: torch.lerp(ours.float(), other[name].float(), share) if name in other else ours
        for name, ours in weights.items()
    }
