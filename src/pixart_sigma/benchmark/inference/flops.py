"""The operations that a scenario's result needs, whoever computes it: real caption tokens only, each caption once.

A side that does more, such as projecting padding or convolving a place that is repeated four times, reaches a smaller
share of the machine's rate. A multiply-add counts as two.
"""

from __future__ import annotations

import torch

from pixart_sigma.benchmark.inference.scenarios import PROMPT_TOKENS, Scenario, Shapes, draw_inputs
from pixart_sigma.encoders.kl_autoencoder import AutoencoderConfig, KLAutoencoder
from pixart_sigma.training.plan.cost import forward_flops, text_encoder_flops

_CAPTIONS = (1, PROMPT_TOKENS)  # the negative one is an end token


def useful_flops(scenario: Scenario, num_steps: int) -> float:
    """Of one run; num_steps are those of a picture."""
    if scenario.work in ("forward", "step"):
        return _denoising(scenario, 1)
    if scenario.work == "text":
        return _text(scenario)
    if scenario.work == "picture":
        return _text(scenario) + _denoising(scenario, num_steps) + _autoencoder(scenario, "decode")
    return _autoencoder(scenario, scenario.work)


def _denoising(scenario: Scenario, num_steps: int) -> float:
    config, side = scenario.shapes.transformer, scenario.side
    negative, positive = (forward_flops(config, side, side, tokens) for tokens in _CAPTIONS)
    # All pictures of a step have the same timestep, in both branches.
    blocks = sum(forward.total - forward.captions - forward.modulation for forward in (negative, positive))
    captions = negative.captions + scenario.batch * positive.captions
    return captions + num_steps * (scenario.batch * blocks + negative.modulation)


def _text(scenario: Scenario) -> float:
    shape = scenario.shapes.text_encoder
    negative, positive = (text_encoder_flops(shape, tokens) for tokens in _CAPTIONS)
    return negative + scenario.batch * positive


def _autoencoder(scenario: Scenario, work: str) -> float:
    """As torch counts them, on tensors without content, in the package's own: it upsamples with the fewest products."""
    from torch.utils.flop_counter import FlopCounterMode

    inputs = draw_inputs(scenario)
    with torch.device("meta"):
        model = KLAutoencoder(_autoencoder_config(scenario.shapes))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        if work == "decode":
            model.decode(inputs.latents.to("meta"))
        else:
            model.encode(inputs.pixels.to("meta"))
    return float(counter.get_total_flops())


def _autoencoder_config(shapes: Shapes) -> AutoencoderConfig:
    shape = shapes.autoencoder
    return AutoencoderConfig(
        block_out_channels=shape.channels,
        layers_per_block=shape.layers_per_block,
        latent_channels=shape.latent_channels,
        norm_num_groups=shapes.norm_groups,
        mid_block_add_attention=shape.middle_attention,
        scaling_factor=shapes.scaling_factor,
    )
