"""What this machine does in a second of the two things that a forward pass mostly is, each timed alone.

Legend: N queries, K keys.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch

from pixart_sigma.benchmark.growth.scenarios import Scenario
from pixart_sigma.benchmark.machine import matrix_rate
from pixart_sigma.benchmark.serving import seconds_now
from pixart_sigma.model.attention import attend, split_heads

_REPEATS = 5
_ENOUGH_SECONDS = 20.0
"""Attention at 4K takes a minute on a CPU: after so long it is not repeated."""


@dataclass(frozen=True)
class Rates:
    """FLOP/s of a product of two large matrices, of attention to all tokens, and of attention to one in a window."""

    matrix: float
    whole: float
    compressed: float


def measured_rates(scenario: Scenario, dtype: torch.dtype, device: torch.device) -> Rates:
    """Here and now, on random numbers of the scenario's shapes."""
    return Rates(
        matrix=matrix_rate(device, dtype),
        whole=attention_rate(scenario, scenario.num_tokens, dtype, device),
        compressed=attention_rate(scenario, scenario.num_keys, dtype, device),
    )


def mean_rates(several: list[Rates]) -> Rates:
    """Of several times, whose mean is that of their seconds."""
    means = {
        name: statistics.harmonic_mean([asdict(each)[name] for each in several])
        for name in asdict(several[0])
    }
    return Rates(**means)


def attention_rate(scenario: Scenario, num_keys: int, dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s of the library's attention, N queries by `num_keys` keys, in memory as the model has them."""
    config, num_tokens = scenario.config, scenario.num_tokens
    queries, keys, values = (
        split_heads(torch.randn(1, count, config.width, device=device).to(dtype), config.num_attention_heads)
        for count in (num_tokens, num_keys, num_keys)
    )

    def work() -> None:
        with torch.no_grad():
            attend(queries, keys, values)

    return attention_flops(scenario, num_keys) / _median_seconds(work, device)


def attention_flops(scenario: Scenario, num_keys: int) -> float:
    """Of one block: scores and their sums over values, a multiply-add as two."""
    return 4.0 * scenario.num_tokens * num_keys * scenario.config.width


def _median_seconds(work: Callable[[], None], device: torch.device) -> float:
    """After one that warms up."""
    work()
    times: list[float] = []
    while len(times) < _REPEATS and sum(times) < _ENOUGH_SECONDS:
        started = seconds_now(device)
        work()
        times.append(seconds_now(device) - started)
    return statistics.median(times)
