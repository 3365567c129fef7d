from dataclasses import replace

import pytest
import torch

from pixart_sigma.errors import InvalidInput
from pixart_sigma.model import TransformerConfig
from pixart_sigma.training.plan.cost import AutoencoderShape, LoraShape, T5Shape
from pixart_sigma.training.plan.hardware import GPUS, Shape, find_gpu, measured_rates
from pixart_sigma.training.plan.report import DEFAULT_EFFICIENCY, PlanInputs, plan, render

XL = TransformerConfig()
INPUTS = PlanInputs(512, 512, batch_size=1024, steps=10_000, gpus=32)


def test_time_follows_from_operations_rate_and_efficiency() -> None:
    made = plan(XL, INPUTS)
    expected = 32 * 312e12 * DEFAULT_EFFICIENCY / made.step.total
    assert made.samples_per_second == pytest.approx(expected)
    assert made.days == pytest.approx(10_000 * 1024 / expected / 86400)
    assert made.device_hours == pytest.approx(made.days * 24 * 32)
    twice = plan(XL, replace(INPUTS, efficiency=2 * DEFAULT_EFFICIENCY))
    assert twice.samples_per_second == pytest.approx(2 * made.samples_per_second)
    slow = plan(XL, replace(INPUTS, attention_rate=0.2))
    ratio = (made.step.total + 4 * 3 * made.forward.attention) / made.step.total
    assert made.samples_per_second / slow.samples_per_second == pytest.approx(ratio)


def test_encoders_that_run_along_cost_time_and_memory() -> None:
    cached = plan(XL, INPUTS)
    online = plan(XL, replace(INPUTS, autoencoder=AutoencoderShape(), text_encoder=T5Shape()))
    assert online.step.encoders > 2.8e12
    assert online.samples_per_second < cached.samples_per_second
    assert online.memory.encoders > 9e9


def test_what_does_not_fit_gets_a_remedy_that_does() -> None:
    inputs = replace(INPUTS, gpu="rtx3090", height=1024, width=1024)
    made = plan(XL, inputs)
    assert not made.fits
    assert made.remedy is not None
    changes = dict(change.split("=") for change in made.remedy.split())
    assert set(changes) <= {
        "run.accumulate",
        "parallel.strategy",
        "parallel.activation_checkpointing",
    }
    remedied = plan(
        XL,
        replace(
            inputs,
            accumulate=int(changes.get("run.accumulate", 1)),
            strategy=changes.get("parallel.strategy", "auto"),
            activation_checkpointing=changes.get("parallel.activation_checkpointing", "none"),
        ),
    )
    assert remedied.fits
    assert f"does not fit in 92% of 24 GiB; try --set {made.remedy.split()[0]}" in render(made)
    hopeless = plan(XL, replace(inputs, gpu="rtx3090", height=8192, width=8192, batch_size=32))
    assert hopeless.remedy is None
    assert "take a larger card" in render(hopeless)


def test_the_text_says_what_was_worked_out() -> None:
    text = render(plan(XL, replace(INPUTS, lora=LoraShape(16, ("attn1.to_q",)), gpu="v100-32g")))
    num_adapters = 28 * 16 * 2 * 1152
    assert f"{610_856_096 + num_adapters:,}, {num_adapters:,} of them trained" in text
    assert "batch 1024 = 32 x v100-32g x 1 micro-batch x 32 pictures" in text
    assert "at 40% of 125 TFLOP/s a card" in text
    assert "it has no bf16" in text
    assert "1,288.98" in text or "1,289" in text  # GFLOP of a forward pass at 512²


def test_wrong_values_are_refused_in_one_line() -> None:
    for inputs, message in (
        (replace(INPUTS, gpu="a100"), "unknown GPU 'a100'; one of v100-32g"),
        (replace(INPUTS, batch_size=100), "batch_size 100 is not a multiple of 32 GPUs x 1 .* nearest: 96"),
        (replace(INPUTS, efficiency=1.5), "efficiency 1.5 is not a share"),
        (replace(INPUTS, attention_rate=0.0), "attention_rate 0.0 is not positive"),
        (replace(INPUTS, gpus=0), "gpus is 0"),
        (replace(INPUTS, width=520), "width 520 is not a multiple of 16"),
        (replace(INPUTS, strategy="hsdp", shard_size=5), "shard_size 5 does not divide 32"),
    ):
        with pytest.raises(InvalidInput, match=message):
            plan(XL, inputs)


def test_cards_are_known_by_name() -> None:
    assert set(GPUS) == {
        "v100-32g",
        "a100-40g",
        "a100-80g",
        "h100-80g",
        "h200-141g",
        "l40s",
        "rtx3090",
        "rtx4090",
    }
    assert find_gpu("h100-80g").tflops == 989


def test_this_machine_is_measured() -> None:
    rates = measured_rates(torch.device("cpu"), torch.float32, Shape(2, 64, 2, 16), repeats=1)
    assert min(rates.matrix, rates.attention, rates.elementwise) > 1e6
    made = plan(XL, replace(INPUTS, gpus=1, gpu="cpu", batch_size=1))
    assert made.gpu.measured
    assert made.efficiency == 1.0
    assert made.gpu.memory_gib > 1
