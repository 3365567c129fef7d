"""The arithmetic of a run, as its recipe says."""

from __future__ import annotations

import torch

from pixart_sigma.training.recipe.process import RunRecipe


def autocast(run: RunRecipe, device: torch.device) -> torch.autocast:
    """bf16 where the recipe says so; weights stay in fp32."""
    # The cache of cast weights must not outlive a step in which they change; autocast clears it on leaving.
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=run.precision == "bf16")
