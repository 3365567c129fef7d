"""What a process is asked to do with a folder of weights, and how it hands over what came out.

Knows nothing of who computes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pixart_sigma.benchmark.inference.scenarios import Scenario
from pixart_sigma.benchmark.inference.stopwatch import Stopwatch

Outputs = dict[str, Tensor]
Compute = Callable[[], Outputs]
"""Does the work once; what it returns is compared with the other side's."""


@dataclass(frozen=True)
class Job:
    """A scenario, the folder with its weights, how they are computed with, and the steps of a picture.

    off: optimisations of ours that are switched off, see `switches`. compiled: the transformer, by torch's compiler.
    """

    scenario: Scenario
    folder: Path
    dtype: torch.dtype
    device: torch.device
    num_steps: int
    off: frozenset[str] = frozenset()
    compiled: bool = False


Builder = Callable[[Job, Stopwatch], Compute]
"""Loads what the work needs; what is returned does it."""
