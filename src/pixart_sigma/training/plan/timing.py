"""How long a training step takes on a device whose rates are known: products, attention, all else, and the update.

Legend: B batch, N image tokens, D width.

Knows nothing of communication and loading; one device that has its data at hand.
"""

from __future__ import annotations

from dataclasses import dataclass

from pixart_sigma.model import TransformerConfig
from pixart_sigma.model.config import MLP_RATIO
from pixart_sigma.training.plan.activations import MicroBatch
from pixart_sigma.training.plan.cost import (
    forward_flops,
    num_elements,
    parameter_shapes,
    step_flops,
    token_grid,
)
from pixart_sigma.training.plan.hardware import Rates


@dataclass(frozen=True)
class StepSeconds:
    """A step's time by part."""

    products: float
    attention: float
    elementwise: float
    update: float

    @property
    def total(self) -> float:
        return self.products + self.attention + self.elementwise + self.update


def predicted_seconds(
    config: TransformerConfig, batch: MicroBatch, latent_scale: int, rates: Rates
) -> StepSeconds:
    """A bf16 step of all weights, nothing recomputed, nothing compiled."""
    forward = forward_flops(
        config,
        batch.height,
        batch.width,
        batch.caption_tokens,
        batch.padded_caption_tokens,
        latent_scale,
    )
    grid = token_grid(config, batch.height, batch.width, latent_scale)
    tokens = grid[0] * grid[1]
    step = step_flops(config, forward, tokens, batch.caption_tokens)
    attention = 3 * forward.attention
    moved = 3 * batch.batch_size * tokens * config.width * config.num_layers * _ELEMENTWISE_BYTES
    return StepSeconds(
        products=batch.batch_size * (step.model - attention) / rates.matrix,
        attention=batch.batch_size * attention / rates.attention,
        elementwise=moved / rates.elementwise,
        update=num_elements(parameter_shapes(config)) / rates.update,
    )


# Bytes that a block's forward pass reads and writes for an element of the residual stream, outside of its products.
_ELEMENTWISE_BYTES = (
    2 * (8 + 8 + 8)  # norm, scale and shift, fp32, twice
    + 5 * 6  # bf16 copies of the inputs of q, k, v, the caption's q and the MLP
    + MLP_RATIO * 4  # GELU
    + 2 * 6  # gates
    + 2 * 12
    + 10  # the three sums with the residual stream
)
