"""Suite plan: the cost model's step time, from rates measured here, beside the step's measured time.

Rates come from products, attention and elementwise work of the scenario's shapes, each timed alone, never from a step;
they are timed before and after the steps, and the mean counts.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from pixart_sigma.benchmark.processes import started
from pixart_sigma.benchmark.table import Row
from pixart_sigma.benchmark.training.scenarios import Scenario, draw_features
from pixart_sigma.benchmark.training.switches import Switches
from pixart_sigma.benchmark.training.train_step import OURS, step_task
from pixart_sigma.resolution import LATENT_SCALE
from pixart_sigma.training.plan.activations import MicroBatch
from pixart_sigma.training.plan.hardware import Rates, Shape, measured_rates
from pixart_sigma.training.plan.timing import predicted_seconds


def plan_check(
    scenarios: Sequence[Scenario], device: torch.device, rounds: int, say: Callable[[str], None]
) -> Iterator[Row]:
    """A row for each scenario: eager steps of ours, as the cost model has them."""
    for scenario in scenarios:
        say(f"{scenario.name}: measuring rates, then {rounds} steps")
        with (
            tempfile.TemporaryDirectory() as folder,
            started([step_task(scenario, OURS, "ours", Switches(), device)], Path(folder)) as (worker,),
        ):
            before = _rates(scenario, device)
            worker.take(rounds)
            after = _rates(scenario, device)
        rates = Rates(
            *(
                (getattr(before, name) + getattr(after, name)) / 2
                for name in ("matrix", "attention", "elementwise", "update")
            )
        )
        lengths = draw_features(scenario).num_caption_tokens
        batch = MicroBatch(scenario.batch_size, scenario.side, scenario.side, round(statistics.mean(lengths)))
        predicted = predicted_seconds(scenario.config, batch, LATENT_SCALE, rates)
        measured = statistics.median(worker.seconds)
        yield {
            "scenario": scenario.name,
            "matrix GFLOP/s": rates.matrix / 1e9,
            "attention GFLOP/s": rates.attention / 1e9,
            "elementwise GB/s": rates.elementwise / 1e9,
            "products s": predicted.products,
            "attention s": predicted.attention,
            "elementwise s": predicted.elementwise,
            "update s": predicted.update,
            "predicted s": predicted.total,
            "measured s": measured,
            "error": f"{100 * (predicted.total / measured - 1):+.0f} %",
        }


def _rates(scenario: Scenario, device: torch.device) -> Rates:
    config = scenario.config
    shape = Shape(
        scenario.batch_size, scenario.num_tokens, config.num_attention_heads, config.attention_head_dim
    )
    return measured_rates(device, torch.bfloat16, shape)
