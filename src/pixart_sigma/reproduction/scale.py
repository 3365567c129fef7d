"""How large the studies are: resolutions, lengths of training, how much is measured. All studies are made for a scale.

The pocket world's 64, 128 and 256 pixels (16, 64 and 256 tokens) stand for the paper's 256, 512 and 1024.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Scale:
    """`low`, `middle`, `high`: sides in pixels, with `batches` and `scenes` for each.

    Steps: of `curve` every stage that is followed over its steps; `base` from scratch at the low resolution, with
    `half` on the way; `alone` from scratch at the middle one, for as much computation as the base and the curve's last
    together; `fine` at the high one. `shrink`: further overrides for every recipe of a kind. A model is measured on
    `num_prompts` of the fixed list (None: all) and as many dense ones, made in `num_steps`; a reference has
    `num_drawn` scenes.
    """

    low: int = 64
    middle: int = 128
    high: int = 256
    batches: tuple[int, int, int] = (64, 32, 16)
    scenes: tuple[int, int, int] = (12_000, 12_000, 2_000)
    curve: tuple[int, int, int] = (30, 100, 300)
    half: int = 750
    base: int = 1500
    alone: int = 1300
    fine: int = 100
    autoencoder: int = 600
    shrink: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    num_prompts: int = 190
    num_steps: int = 12
    guidance_scale: float = 4.5
    num_drawn: int = 1000
    num_captions: int = 20_000


FULL = Scale()

_FEW_STEPS = (
    "run.compile=false",
    "run.precision=fp32",
    "run.log_every=1",
    "run.validate_every=1000",
    "run.checkpoint_every=1000",
    "run.trackers=[]",
)

FAST = Scale(
    low=32,
    middle=64,
    high=96,
    batches=(2, 2, 2),
    scenes=(4, 4, 4),
    curve=(1, 2, 3),
    half=4,
    base=5,
    alone=5,
    fine=1,
    autoencoder=1,
    shrink={
        "transformer": (*_FEW_STEPS, "data.validation.drawn.num_scenes=2", "samples.num_steps=1"),
        "scratch": (
            "scratch.num_layers=4",
            "scratch.num_attention_heads=2",
            "scratch.attention_head_dim=12",
        ),
        "autoencoder": (
            *_FEW_STEPS,
            "run.batch_size=2",
            "pool.num_scenes=4",
            "pool.num_validation=2",
            "image_sizes=[32]",
            "crop_size=32",
            "model.block_out_channels=[8, 8, 8, 8]",
        ),
        "text-encoder": (*_FEW_STEPS, "run.batch_size=2", "num_scenes=64", "num_validation=4"),
        "caption-reader": (*_FEW_STEPS, "run.batch_size=2", "num_scenes=8", "num_validation=4"),
    },
    num_prompts=4,
    num_steps=1,
    guidance_scale=1.0,
    num_drawn=8,
    num_captions=24,
)
"""A smoke test: everything runs, and nothing is learnt."""
