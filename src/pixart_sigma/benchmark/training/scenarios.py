"""What is measured: model shapes, sizes and batches, and random features in place of cached ones.

Legend: B batch, C latent channels, L caption tokens, E caption channels.

Knows nothing of what is done with them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pixart_sigma.benchmark.named import named
from pixart_sigma.model import TransformerConfig
from pixart_sigma.resolution import LATENT_SCALE

PADDED_CAPTION_TOKENS = 300
SHORTEST_CAPTION, LONGEST_CAPTION = 60, 180
"""Real tokens of a caption are drawn evenly from this range; plain scripts pad all to 300."""


@dataclass(frozen=True)
class Scenario:
    """A transformer, the side of a square picture in pixels, and how many pictures a step takes."""

    name: str
    config: TransformerConfig
    side: int
    batch_size: int

    @property
    def num_tokens(self) -> int:
        return (self.side // LATENT_SCALE // self.config.patch_size) ** 2


@dataclass(frozen=True)
class Features:
    """What a trainer reads from its cache, and draws: latents, noise (B, C, h, w); timesteps (B,) int64.

    Captions: states (B, 300, E), zero where mask (B, 300) is False.
    """

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    states: Tensor
    mask: Tensor

    @property
    def num_caption_tokens(self) -> list[int]:
        return [int(count) for count in self.mask.sum(1)]


_POCKET = TransformerConfig(
    num_layers=8,
    num_attention_heads=4,
    attention_head_dim=64,
    sample_size=16,
    caption_channels=192,
    interpolation_scale=0.25,
)


def _xl(side: int, num_layers: int = 28) -> TransformerConfig:
    return TransformerConfig(
        num_layers=num_layers, sample_size=side // LATENT_SCALE, interpolation_scale=side / 512
    )


CPU_SCENARIOS = (
    Scenario("pocket", _POCKET, 128, 32),
    Scenario("xl-4-blocks-256", _xl(256, 4), 256, 4),
    Scenario("xl-4-blocks-512", _xl(512, 4), 512, 1),
)
CUDA_SCENARIOS = (
    Scenario("xl-256", _xl(256), 256, 32),
    Scenario("xl-512", _xl(512), 512, 16),
    Scenario("xl-1024", _xl(1024), 1024, 4),
)
_TINY = TransformerConfig(
    num_layers=2, num_attention_heads=2, attention_head_dim=8, sample_size=8, caption_channels=12
)
TINY = Scenario("tiny", _TINY, 64, 2)
"""For the tests: seconds, and its figures mean nothing."""


def choose(device_type: str, names: list[str]) -> list[Scenario]:
    """The scenarios of a device, all of them or those named. Raises InvalidInput for an unknown name."""
    offered = CUDA_SCENARIOS if device_type == "cuda" else CPU_SCENARIOS
    if not names:
        return list(offered)
    return named((*CPU_SCENARIOS, *CUDA_SCENARIOS, TINY), names)


def draw_features(scenario: Scenario) -> Features:
    """The same random features every time, on the CPU, fp32."""
    generator = torch.Generator().manual_seed(0)
    config = scenario.config
    latents = (
        scenario.batch_size,
        config.in_channels,
        scenario.side // LATENT_SCALE,
        scenario.side // LATENT_SCALE,
    )
    # Evenly spread rather than drawn, so that a small batch has the range's mean too.
    lengths = torch.linspace(SHORTEST_CAPTION, LONGEST_CAPTION, scenario.batch_size + 2)[1:-1].round()
    mask = torch.arange(PADDED_CAPTION_TOKENS) < lengths[:, None]
    states = torch.randn(
        scenario.batch_size, PADDED_CAPTION_TOKENS, config.caption_channels, generator=generator
    )
    return Features(
        latents=torch.randn(latents, generator=generator),
        noise=torch.randn(latents, generator=generator),
        timesteps=torch.randint(0, 1000, (scenario.batch_size,), generator=generator),
        states=states * mask[..., None],
        mask=mask,
    )
