"""Where a suite's figures go, and what a command tells of a suite that ran. Knows nothing of suites."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from pixart_sigma.benchmark.figures import Figures, render, write_figures
from pixart_sigma.errors import InvalidInput
from pixart_sigma.pipeline.device import DTYPES, resolve_device
from pixart_sigma.pipeline.request import Request
from pixart_sigma.weights.atomic import check_writable, written_whole

Say = Callable[[str], None]


@dataclass(frozen=True)
class Output:
    """Files for the figures and for the page's section, None for neither. Raises InvalidInput if one cannot be."""

    json_file: Path | None = None
    markdown_file: Path | None = None

    def __post_init__(self) -> None:
        for path in (self.json_file, self.markdown_file):
            if path is not None:
                check_writable(path)

    def write(self, figures: Figures) -> None:
        """Write them."""
        if self.json_file is not None:
            write_figures(self.json_file, figures)
        if self.markdown_file is not None:
            with written_whole(self.markdown_file) as temporary:
                temporary.write_text(f"{render(figures)}\n", "utf-8")


@dataclass(frozen=True)
class Outcome:
    """What the terminal shows, and the rows that failed, a line each."""

    text: str
    failures: tuple[str, ...] = ()


def benchmark_device(name: str) -> torch.device:
    """The CPU or the first GPU, which is what a row's process takes. Raises InvalidInput for others."""
    device = resolve_device(name)
    if device.type not in ("cpu", "cuda") or device.index:
        raise InvalidInput(
            f"benchmarks run on cpu or on the first CUDA GPU, not on {name!r}; choose a GPU by CUDA_VISIBLE_DEVICES"
        )
    return device


def check_rounds(rounds: int) -> None:
    """Raises InvalidInput for none."""
    if rounds < 1:
        raise InvalidInput(f"rounds is {rounds}; it must be at least 1 (--rounds 5)")


def checked_options(rounds: int, num_steps: int | None, batch: int) -> dict[str, int]:
    """Those of a suite on inference that its figures depend on: of a batch of one nothing is said.

    num_steps: of a picture, None for other work. Raises InvalidInput for numbers out of range.
    """
    check_rounds(rounds)
    if batch < 1:
        raise InvalidInput(f"batch is {batch}; it must be at least 1 (--batch 4)")
    Request(("a prompt",) * batch, num_steps=1 if num_steps is None else num_steps)  # which knows the rules
    options = {"rounds": rounds}
    if num_steps is not None:
        options["steps"] = num_steps
    if batch > 1:
        options["batch"] = batch
    return options


def chosen_dtypes(names: list[str]) -> list[str]:
    """Those named, or all. Raises InvalidInput for an unknown name."""
    unknown = [name for name in names if name not in DTYPES]
    if unknown:
        raise InvalidInput(f"unknown dtype {unknown[0]!r}; one of {', '.join(DTYPES)} (--dtype)")
    return names or list(DTYPES)
