"""What is measured: the parts' shapes, sizes in pixels, and what goes in.

Legend: B pictures at once, C latent channels, h, w latents, L caption tokens, E caption channels.

Knows nothing of how weights come about, nor of who computes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from pixart_sigma.benchmark.named import named
from pixart_sigma.encoders.text import SIGMA_CAPTION_LENGTH
from pixart_sigma.model import TransformerConfig
from pixart_sigma.resolution import LATENT_SCALE
from pixart_sigma.training.plan.cost import AutoencoderShape, T5Shape

Suite = Literal["transformer", "pipeline", "vae", "text-encoder"]
Work = Literal["forward", "step", "picture", "decode", "encode", "text"]
"""A step is a forward pass among many: whoever prepares something once a prompt or schedule has done so before."""
Part = Literal["transformer", "text_encoder", "tokenizer", "vae", "scheduler"]

PROMPT_TOKENS = 40
"""Of the caption, its end token included; diffusers pads them to 300."""
TIMESTEP = 500
"""Of a single forward pass; which one makes no difference to its time."""
_NUM_WORDS, _STRIDE = 97, 19
REDUCED_TEXT_LAYERS = 4
"""Where memory does not hold the whole text encoder, the table's rows are of one layer in so many."""


@dataclass(frozen=True)
class Shapes:
    """What the parts of a pipeline are made of. `norm_groups`: of the autoencoder's norms."""

    transformer: TransformerConfig
    text_encoder: T5Shape
    autoencoder: AutoencoderShape
    scaling_factor: float = 0.13025
    norm_groups: int = 32


@dataclass(frozen=True)
class Scenario:
    """Some work of a pipeline of these shapes on square pictures; `side` in pixels, 0 where there is no picture.

    heavy: a round takes minutes on a CPU; it runs there where it is asked for by name. batch: pictures at once, each of
    a prompt of its own, or so many prompts.
    """

    name: str
    work: Work
    shapes: Shapes
    side: int = 0
    heavy: bool = False
    batch: int = 1

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """(B, C, h, w)"""
        side = self.side // LATENT_SCALE
        return self.batch, self.shapes.transformer.in_channels, side, side

    @property
    def parts(self) -> tuple[Part, ...]:
        """The folders of a pipeline that the work needs."""
        needed: dict[Work, tuple[Part, ...]] = {
            "forward": ("transformer",),
            "step": ("transformer",),
            "picture": get_args(Part),
            "decode": ("vae",),
            "encode": ("vae",),
            "text": ("text_encoder", "tokenizer"),
        }
        return needed[self.work]


def xl_shapes(side: int) -> Shapes:
    """PixArt-Σ XL/2 for a base of that many pixels, T5-XXL and SDXL's autoencoder."""
    transformer = TransformerConfig(sample_size=side // LATENT_SCALE, interpolation_scale=side / 512)
    return Shapes(transformer, T5Shape(), AutoencoderShape())


TINY_SHAPES = Shapes(
    TransformerConfig(
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=8,
        sample_size=8,
        caption_channels=16,
        interpolation_scale=0.125,
    ),
    T5Shape(16, 32, num_layers=4, num_heads=2, head_dim=8, vocabulary_size=100),
    AutoencoderShape((8, 8, 8, 8), 1),
    norm_groups=4,
)
_TINY_SIDE = 64
SCENARIOS: dict[Suite, tuple[Scenario, ...]] = {
    "transformer": tuple(
        Scenario(f"xl-{side}", "forward", xl_shapes(side), side) for side in (256, 512, 1024)
    ),
    "pipeline": tuple(
        Scenario(f"sigma-{side}", "picture", xl_shapes(side), side, heavy=side > 512)
        for side in (256, 512, 1024)
    ),
    "vae": tuple(
        Scenario(f"{work}-{side}", work, xl_shapes(side), side)
        for side in (256, 512)
        for work in ("decode", "encode")
    ),
    "text-encoder": (Scenario("t5-xxl", "text", xl_shapes(256)),),
}
TINY: dict[Suite, tuple[Scenario, ...]] = {
    "transformer": (Scenario("tiny", "forward", TINY_SHAPES, _TINY_SIDE),),
    "pipeline": (Scenario("tiny", "picture", TINY_SHAPES, _TINY_SIDE),),
    "vae": (
        Scenario("tiny", "decode", TINY_SHAPES, _TINY_SIDE),
        Scenario("tiny-encode", "encode", TINY_SHAPES, _TINY_SIDE),
    ),
    "text-encoder": (Scenario("tiny", "text", TINY_SHAPES),),
}
"""For the tests: seconds, and their figures mean nothing."""


def choose(suite: Suite, names: list[str], device_type: str, batch: int = 1) -> list[Scenario]:
    """Those named, or all but the tiny ones and, on a CPU, the heavy ones; each with so many pictures at once.

    Raises InvalidInput for an unknown name.
    """
    chosen = named((*SCENARIOS[suite], *TINY[suite]), names) or [
        scenario for scenario in SCENARIOS[suite] if device_type != "cpu" or not scenario.heavy
    ]
    return [replace(scenario, batch=batch) for scenario in chosen]


def with_fewer_text_layers(scenario: Scenario) -> Scenario:
    """A quarter of the text encoder's layers."""
    whole = scenario.shapes.text_encoder
    text_encoder = replace(whole, num_layers=max(1, whole.num_layers // REDUCED_TEXT_LAYERS))
    return replace(scenario, shapes=replace(scenario.shapes, text_encoder=text_encoder))


def prompts(batch: int) -> list[str]:
    """As many words as make `PROMPT_TOKENS` with the end token, in each prompt others.

    The random pipeline's tokenizer has a token a word, and the tiny one's no more words than these.
    """
    return [
        " ".join(f"w{(index + _STRIDE * picture) % _NUM_WORDS}" for index in range(PROMPT_TOKENS - 1))
        for picture in range(batch)
    ]


@dataclass(frozen=True)
class Inputs:
    """What goes in, the same every time, float32 on the CPU.

    latents (B, C, h, w), of unit variance: noise too; pixels (B, 3, H, W) in -1 … 1; embeds (2 B, L, E), the negative
    caption's first, B times, zero where mask (2 B, L) is False.
    """

    latents: Tensor
    pixels: Tensor
    embeds: Tensor
    mask: Tensor


def draw_inputs(scenario: Scenario) -> Inputs:
    """Latents, pictures, and captions beside the empty one, which is its end token alone."""
    generator = torch.Generator().manual_seed(0)
    batch = scenario.batch
    lengths = torch.tensor([1, PROMPT_TOKENS]).repeat_interleave(batch)
    mask = torch.arange(SIGMA_CAPTION_LENGTH) < lengths[:, None]
    channels = scenario.shapes.transformer.caption_channels
    drawn = torch.randn(1 + batch, SIGMA_CAPTION_LENGTH, channels, generator=generator)
    embeds = torch.cat([drawn[:1].expand(batch, -1, -1), drawn[1:]])
    return Inputs(
        latents=torch.randn(scenario.latent_shape, generator=generator),
        pixels=torch.rand(batch, 3, scenario.side, scenario.side, generator=generator) * 2 - 1,
        embeds=embeds * mask[..., None],
        mask=mask,
    )
