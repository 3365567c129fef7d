"""What the process of one side is told. Knows nothing of what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from pixart_sigma.benchmark.inference.scenarios import Scenario, Suite, Work
from pixart_sigma.benchmark.processes import Task

Side = Literal["ours", "diffusers"]
OURS: Side = "ours"
THEIRS: Side = "diffusers"
_WORKER = "pixart_sigma.benchmark.inference.worker"


@dataclass(frozen=True)
class Setting:
    """What the sides of a row have in common. work: another than the scenario's own."""

    suite: Suite
    scenario: Scenario
    dtype: str
    device: torch.device
    num_steps: int
    work: Work | None = None

    def task(
        self,
        name: str,
        side: Side,
        folder: Path,
        outputs: Path,
        *,
        off: tuple[str, ...] = (),
        compiled_in: Path | None = None,
    ) -> Task:
        """The process of a side, with the weights in `folder`; its first outputs go to a file.

        off: optimisations of ours, see `switches`; of diffusers the first one, which is any process's. compiled_in: the
        compiler's folder, None for eager.
        """
        arguments = {
            "suite": self.suite,
            "scenario": self.scenario.name,
            "batch": self.scenario.batch,
            "work": self.work or self.scenario.work,
            "side": side,
            "folder": str(folder),
            "dtype": self.dtype,
            "device": self.device.type,
            "num_steps": self.num_steps,
            "outputs": str(outputs),
            "off": list(off),
            "compiled_in": None if compiled_in is None else str(compiled_in),
        }
        return Task(name, _WORKER, arguments)
