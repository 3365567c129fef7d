"""How many seconds compression should save, from counted operations and from rates that were measured beside it.

It has attention's products and those of the linear layers. It leaves out everything else that compression adds:
continuing a grid and putting its tokens in order by window, mixing a window's tokens, the convolution's LayerNorm, and
smaller or differently shaped products than those whose rate was measured.

Knows nothing of how rates are measured, nor of what was saved.
"""

from __future__ import annotations

from dataclasses import dataclass

from pixart_sigma.benchmark.growth.rates import Rates, attention_flops
from pixart_sigma.benchmark.growth.scenarios import Scenario, Way, config_in
from pixart_sigma.training.plan.cost import forward_flops


@dataclass(frozen=True)
class Saving:
    """Seconds of one forward pass that are saved.

    products: of an average, since a window's tokens are projected to keys and values as one; of a convolution none,
    since each of them is projected, and less than none on a grid that is continued, where there are more of them.
    """

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
