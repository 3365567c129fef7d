"""What is measured: a transformer whose deeper half can compress, sizes of pictures, and what goes in.

Legend: C latent channels, h, w latents, L caption tokens, E caption channels.

Knows nothing of how it is measured.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from pixart_sigma.benchmark.inference.scenarios import PROMPT_TOKENS, TINY_SHAPES, Shapes
from pixart_sigma.benchmark.inference.scenarios import Scenario as InferenceScenario
from pixart_sigma.benchmark.named import named
from pixart_sigma.model import KVCompression, TransformerConfig
from pixart_sigma.model.kv_compression import num_kept_tokens
from pixart_sigma.resolution import LATENT_SCALE
from pixart_sigma.training.plan.cost import AutoencoderShape, T5Shape, token_grid
from pixart_sigma.weights.compression import compressed_blocks

Suite = Literal["kv-compression", "scaling"]
Way = Literal["R = 1", "2x2 conv", "2x2 average"]
WAYS: dict[Suite, tuple[Way, ...]] = {
    "kv-compression": get_args(Way),
    "scaling": ("R = 1", "2x2 conv"),
}
WINDOW = (2, 2)
EXACT: Way = "R = 1"
"""The others compute something else, and less."""


@dataclass(frozen=True)
class Scenario:
    """A forward pass on one picture of `size` (height, width), in pixels.

    config: with the convolutions of the compressed half; the other ways leave them out. heavy: takes hours on a CPU,
    and runs there where it is asked for by name.
    """

    name: str
    config: TransformerConfig
    size: tuple[int, int]
    heavy: bool = False

    @property
    def compression(self) -> KVCompression:
        assert self.config.kv_compression is not None
        return self.config.kv_compression

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens."""
        return token_grid(self.config, *self.size, LATENT_SCALE)

    @property
    def num_tokens(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def num_keys(self) -> int:
        """In a block that compresses."""
        return num_kept_tokens(self.grid, self.compression.window)

    @property
    def weights(self) -> InferenceScenario:
        """What a random pipeline's folder is asked for."""
        shapes = Shapes(self.config, T5Shape(), AutoencoderShape())
        return InferenceScenario(self.name, "forward", shapes)


def config_in(config: TransformerConfig, way: Way) -> TransformerConfig:
    """The scenario's configuration in a way."""
    if way == "2x2 conv":
        return config
    if way == "R = 1" or config.kv_compression is None:
        return replace(config, kv_compression=None)
    average = KVCompression(config.kv_compression.window, "average", config.kv_compression.blocks)
    return replace(config, kv_compression=average)


def _xl(name: str, height: int, width: int, num_layers: int = 28, heavy: bool = False) -> Scenario:
    """XL/2's width; `name` ends with the size."""
    # The largest released base has 2048 px; larger pictures have positions in between.
    base = min(height, 2048)
    config = TransformerConfig(
        num_layers=num_layers, sample_size=base // LATENT_SCALE, interpolation_scale=base / 512
    )
    return Scenario(name, _compressing(config), (height, width), heavy)


def _compressing(config: TransformerConfig) -> TransformerConfig:
    deep = compressed_blocks("deep", config.num_layers)
    return replace(config, kv_compression=KVCompression(WINDOW, "conv", deep))


_TINY = _compressing(TINY_SHAPES.transformer)
SCENARIOS: dict[Suite, tuple[Scenario, ...]] = {
    "kv-compression": (
        _xl("xl-512", 512, 512),
        _xl("xl-1024", 1024, 1024),
        _xl("xl-4-blocks-2k", 2048, 2048, 4),
        _xl("xl-2k", 2048, 2048, heavy=True),
        _xl("xl-4-blocks-4k", 2160, 3840, 4, heavy=True),
        _xl("xl-4k", 2160, 3840, heavy=True),
    ),
    "scaling": (
        *(_xl(f"xl-4-blocks-{side}", side, side, 4) for side in (256, 512, 1024, 2048)),
        *(_xl(f"xl-4-blocks-{side}", side, side, 4, heavy=True) for side in (2880, 4096)),
    ),
}
TINY: dict[Suite, tuple[Scenario, ...]] = {
    "kv-compression": (Scenario("tiny", _TINY, (128, 192)), Scenario("tiny-odd", _TINY, (144, 208))),
    "scaling": tuple(Scenario(f"tiny-{side}", _TINY, (side, side)) for side in (64, 128, 192, 256)),
}
"""For the tests: seconds, and their figures mean nothing."""


def choose(suite: Suite, names: list[str], device_type: str) -> list[Scenario]:
    """Those named, or all but the tiny ones and, on a CPU, the heavy ones. Raises InvalidInput for an unknown name."""
    if not names:
        return [scenario for scenario in SCENARIOS[suite] if device_type != "cpu" or not scenario.heavy]
    return named((*SCENARIOS[suite], *TINY[suite]), names)


@dataclass(frozen=True)
class Inputs:
    """What goes in, the same every time, float32 on the CPU: latents (1, C, h, w), embeds (1, L, E), mask (1, L)."""

    latents: Tensor
    embeds: Tensor
    mask: Tensor


def draw_inputs(scenario: Scenario) -> Inputs:
    """Noise, and a caption whose tokens are all real."""
    generator = torch.Generator().manual_seed(0)
    config = scenario.config
    height, width = (side // LATENT_SCALE for side in scenario.size)
    return Inputs(
        latents=torch.randn(1, config.in_channels, height, width, generator=generator),
        embeds=torch.randn(1, PROMPT_TOKENS, config.caption_channels, generator=generator),
        mask=torch.ones(1, PROMPT_TOKENS, dtype=torch.bool),
    )
