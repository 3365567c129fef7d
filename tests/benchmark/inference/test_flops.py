from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pixart_sigma import products
from pixart_sigma.benchmark.inference.flops import useful_flops
from pixart_sigma.benchmark.inference.random_pipeline import build_autoencoder
from pixart_sigma.benchmark.inference.scenarios import SCENARIOS, TINY, draw_inputs
from pixart_sigma.model import PixArtTransformer

BY_NAME = {scenario.name: scenario for several in SCENARIOS.values() for scenario in several}


def test_the_useful_operations_are_the_published_ones() -> None:
    # A pass with 300 caption tokens is 0.333 TFLOP at 256 px and 1.289 at 512 px. Their projections are 0.048 of it,
    # attending to them 0.010 and 0.040. Here are two passes, with 41 tokens together.
    assert useful_flops(BY_NAME["xl-256"], 1) / 1e12 == pytest.approx(2 * 0.275 + 0.058 * 41 / 300, rel=5e-3)
    assert useful_flops(BY_NAME["xl-512"], 1) / 1e12 == pytest.approx(2 * 1.201 + 0.088 * 41 / 300, rel=5e-3)
    # 0.37 TFLOP for 40 tokens, and a fortieth for the end token.
    assert useful_flops(BY_NAME["t5-xxl"], 1) / 1e12 == pytest.approx(0.37 * 41 / 40, rel=0.02)


def test_captions_count_once_and_the_rest_at_every_step() -> None:
    one, two, three = (useful_flops(BY_NAME["sigma-256"], steps) for steps in (1, 2, 3))
    assert three - two == two - one
    parts = sum(useful_flops(BY_NAME[name], 1) for name in ("t5-xxl", "xl-256", "decode-256"))
    assert one == pytest.approx(parts)


def test_what_all_pictures_share_counts_once() -> None:
    one, two, three = (useful_flops(replace(BY_NAME["sigma-256"], batch=batch), 2) for batch in (1, 2, 3))
    assert three - two == pytest.approx(two - one)
    assert one < two < 2 * one


def test_upsampling_counts_once_where_places_are_repeated() -> None:
    (scenario, _) = TINY["vae"]
    theirs = build_autoencoder(scenario.shapes).to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        theirs.decode(draw_inputs(scenario).latents.to("meta"))
    # Three levels of 8 channels end with 16, 32 and 64 places along a side.
    places = sum(side**2 for side in (16, 32, 64))
    needless = 2 * (9 - 4) * places * 8 * 8
    assert useful_flops(scenario, 1) == counter.get_total_flops() - needless


def test_a_forward_pass_is_what_torch_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "IS_FASTER", False)  # torch counts its own products
    (scenario,) = TINY["transformer"]
    inputs = draw_inputs(scenario)
    model = PixArtTransformer(scenario.shapes.transformer)
    # The fused kernel is not counted on the CPU.
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel([SDPBackend.MATH]):
        captions = model.prepare_captions(inputs.embeds, inputs.mask)
        timesteps = model.prepare_timesteps(torch.tensor([500]))
        model(inputs.latents.repeat(2, 1, 1, 1), captions, timesteps)
    # Ours attends to captions padded to the longest, rounded up to 48; nobody has to.
    config = scenario.shapes.transformer
    attending = config.num_layers * 4 * (scenario.side // 16) ** 2 * config.width
    needless = attending * (2 * 48 - 41)
    assert useful_flops(scenario, 1) == counter.get_total_flops() - needless
