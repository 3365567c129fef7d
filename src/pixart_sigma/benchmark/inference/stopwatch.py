"""Where a run's time goes: calls of the parts are timed, and what lies between them follows.

Knows nothing of the parts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

from pixart_sigma.benchmark.serving import seconds_now

Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")


class Stopwatch:
    """Notes when calls begin and end, on a device that may still be busy when a call returns."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._calls: list[tuple[str, float, float]] = []

    def clear(self) -> None:
        """Begin a new run."""
        self._calls.clear()

    def watched(self, stage: str, function: Callable[Parameters, Returned]) -> Callable[Parameters, Returned]:
        """The same function, its calls noted as a stage's."""

        def call(*arguments: Parameters.args, **options: Parameters.kwargs) -> Returned:
            started = seconds_now(self._device)
            returned = function(*arguments, **options)
            self._calls.append((stage, started, seconds_now(self._device)))
            return returned

        return call

    def stages(self, total: float) -> dict[str, float]:
        """Seconds by stage of a run of `total` seconds. Between text and decoding stands denoising; then the rest."""
        seconds: dict[str, float] = {}
        for stage, started, ended in self._calls:
            seconds[stage] = seconds.get(stage, 0.0) + ended - started
        if "text" in seconds and "decode" in seconds:
            encoded = max(ended for stage, _, ended in self._calls if stage == "text")
            seconds["denoise"] = min(start for stage, start, _ in self._calls if stage == "decode") - encoded
            seconds["rest"] = total - sum(seconds.values())
        return seconds
