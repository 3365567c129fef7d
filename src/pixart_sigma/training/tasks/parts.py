"""The weights of one part of what a task trains."""

from __future__ import annotations

from torch import Tensor


def part_weights(weights: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    """{"transformer.proj_out.weight": …} → {"proj_out.weight": …} for part "transformer"."""
    prefix = f"{part}."
    return {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}
