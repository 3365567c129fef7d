"""How many seconds compression should save, from counted operations and from rates that were measured beside it.

Knows nothing of how rates are measured, nor of what was saved.
"""

from __future__ import annotations

from dataclasses import dataclass

from pixart_sigma.benchmark.growth.rates import Rates, attention_flops
from pixart_sigma.benchmark.growth.scenarios import Scenario, Way, config_in
from pixart_sigma.training.plan.cost import forward_flops


@dataclass(frozen=True)
class Saving:
    """Seconds of one forward pass. Products may cost more than without compression: a convolution has its own."""

    attention: float
    products: float

    @property
    def total(self) -> float:
        return self.attention + self.products


def predicted_saving(scenario: Scenario, way: Way, rates: Rates) -> Saving:
    """What attention of the compressed blocks takes less, each at its own rate, and what the products take less."""
    blocks = len(scenario.compression.blocks)
    whole = attention_flops(scenario, scenario.num_tokens) / rates.whole
    compressed = attention_flops(scenario, scenario.num_keys) / rates.compressed
    counts = [forward_flops(config_in(scenario.config, each), *scenario.size) for each in _beside(way)]
    return Saving(
        attention=blocks * (whole - compressed), products=(counts[0].matrix - counts[1].matrix) / rates.matrix
    )


def _beside(way: Way) -> tuple[Way, Way]:
    return "R = 1", way
