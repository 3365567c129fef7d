"""The equality gate: nothing is timed unless both sides gave the same. Knows nothing of models.

fp32: what remains is the order of sums; XL/2 at 256 px differs by 6e-7, a picture of 20 steps by 1e-6. bf16: each side
rounds a number to 8 bits some hundred times on the way, in places of its own, and a sampler feeds its errors back
twenty times; XL/2 at 256 px differs by 0.013, the latents and pixels of a picture by 0.03. A wrong prompt or timestep
passes neither tolerance, a small fault only the second one: that is what the rows in fp32 are for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.1}


@dataclass(frozen=True)
class Verdict:
    """max|a - b| / max|b| of each output, b being the other side's, and the most that is let through."""

    errors: dict[str, float]
    tolerance: float

    @property
    def failure(self) -> str | None:
        """What is wrong, or None."""
        # Written so that an error that is no number fails.
        wrong = {name: error for name, error in self.errors.items() if not error <= self.tolerance}
        if not wrong:
            return None
        named = ", ".join(f"{name} {error:.2g}" for name, error in wrong.items())
        return f"the two sides differ: {named}, allowed is {self.tolerance:g}"


def compare(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], dtype: torch.dtype) -> Verdict:
    """Outputs by name, fp32, of both sides; a missing output or another shape is an infinite error."""
    errors = {}
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in ours or name not in theirs or ours[name].shape != theirs[name].shape:
            errors[name] = float("inf")
            continue
        errors[name] = float((ours[name] - theirs[name]).abs().max() / theirs[name].abs().max())
    return Verdict(errors, TOLERANCES[dtype])
