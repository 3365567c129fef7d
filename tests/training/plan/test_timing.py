import pytest

from pixart_sigma.model import TransformerConfig
from pixart_sigma.training.plan.activations import MicroBatch
from pixart_sigma.training.plan.cost import forward_flops
from pixart_sigma.training.plan.hardware import Rates
from pixart_sigma.training.plan.timing import predicted_seconds


def test_each_part_takes_its_own_rate() -> None:
    config = TransformerConfig()
    forward = forward_flops(config, 512, 512, 100, 112)
    seconds = predicted_seconds(config, MicroBatch(4, 512, 512, 100), 8, Rates(1e12, 2e11, 1e10, 1e9))
    assert seconds.products == pytest.approx(4 * 3 * forward.matrix / 1e12)
    assert seconds.attention == pytest.approx(4 * 3 * forward.attention / 2e11)
    assert seconds.update == pytest.approx(610_856_096 / 1e9)
    # 140 bytes an element and block forward, twice that backward.
    assert seconds.elementwise == pytest.approx(3 * 4 * 1024 * 1152 * 28 * 140 / 1e10)
    assert seconds.total == pytest.approx(
        seconds.products + seconds.attention + seconds.update + seconds.elementwise
    )
