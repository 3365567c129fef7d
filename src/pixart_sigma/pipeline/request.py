"""What is asked for: the parameters of one call, checked before anything heavy is imported.

Knows nothing of tensors. What depends on the model (its default size, whether it exists) is checked
elsewhere.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pixart_sigma.errors import InvalidInput
from pixart_sigma.pipeline.kv_compression import KVCompressionRequest, parse_kv_compression
from pixart_sigma.pipeline.samplers import (
    DEFAULT_GUIDANCE_SCALE,
    DEFAULT_SAMPLER,
    DEFAULT_STEPS,
    find_sampler,
)
from pixart_sigma.pipeline.shortcuts import NO_SHORTCUTS, Shortcuts
from pixart_sigma.resolution import check_size
from pixart_sigma.weights.folder import find_lora

DTYPE_NAMES = ("float32", "bfloat16")
MAX_IMAGES = 64  # they are made as one batch
MAX_SEED = 2**63 - 1  # of the last image, in a signed 64-bit integer: image i has seed + i


@dataclass(frozen=True)
class Request:
    """The parameters of one call; raises InvalidInput if one breaks a rule or would be ignored.

    `height` and `width` in pixels, both or neither (then the model's own base). `kv_compression` may be given as a
    window alone, (height, width) in tokens or "2x2", and is then averaged in the deeper half of the blocks.
    `shortcuts`: what is left out of sampling.
    """

    prompts: tuple[str, ...]
    negative_prompt: str = ""
    height: int | None = None
    width: int | None = None
    num_steps: int = DEFAULT_STEPS
    guidance_scale: float = DEFAULT_GUIDANCE_SCALE
    seed: int = 0
    num_images: int = 1
    sampler: str = DEFAULT_SAMPLER
    kv_compression: KVCompressionRequest | tuple[int, int] | list[int] | str | None = None
    shortcuts: Shortcuts = NO_SHORTCUTS

    def __post_init__(self) -> None:
        if not self.prompts or not all(prompt.strip() for prompt in self.prompts):
            raise InvalidInput("the prompt is empty; describe a picture, such as 'a red house by a lake'")
        if (self.height is None) != (self.width is None):
            raise InvalidInput(
                f"height {self.height} and width {self.width} go together; give both or neither"
            )
        if self.height is not None and self.width is not None:
            check_size(self.height, self.width)
        sampler = find_sampler(self.sampler)
        _check_range(
            "steps",
            self.num_steps,
            sampler.min_steps,
            sampler.max_steps,
            f"{sampler.steps} is a good choice with sampler {self.sampler}",
        )
        if len(self.prompts) > MAX_IMAGES:
            raise InvalidInput(
                f"{len(self.prompts)} prompts exceed {MAX_IMAGES} in a call; make several calls"
            )
        _check_range(
            "num_images", self.num_images, 1, MAX_IMAGES // len(self.prompts), "several calls make more"
        )
        last = len(self.prompts) * self.num_images - 1
        _check_range("seed", self.seed, 0, MAX_SEED - last, "0 is as good as any")
        if not (math.isfinite(self.guidance_scale) and self.guidance_scale >= 1):
            raise InvalidInput(
                f"guidance scale {self.guidance_scale} is not a number of at least 1; "
                f"1 turns guidance off, {DEFAULT_GUIDANCE_SCALE} is a good choice"
            )
        if sampler.kind != "many-step" and self.negative_prompt.strip():
            raise InvalidInput(
                f"sampler {self.sampler!r} takes no negative prompt, since guidance is distilled into its models; "
                "leave it out"
            )
        if self.negative_prompt.strip() and self.guidance_scale == 1:
            raise InvalidInput(
                "a negative prompt needs guidance, and guidance scale 1 turns it off; raise the scale"
            )
        if sampler.kind != "many-step" and self.guidance_scale != 1:
            raise InvalidInput(
                f"sampler {self.sampler!r} takes no guidance, which is distilled into its models; "
                f"use --guidance-scale 1 instead of {self.guidance_scale:g}"
            )
        self.shortcuts.check(self.num_steps, self.guidance_scale > 1)
        if isinstance(self.kv_compression, tuple | list):
            window = cast(tuple[int, int], tuple(self.kv_compression))
            object.__setattr__(self, "kv_compression", KVCompressionRequest(window))
        elif isinstance(self.kv_compression, str):
            object.__setattr__(self, "kv_compression", parse_kv_compression(self.kv_compression, None, None))

    @property
    def compression(self) -> KVCompressionRequest | None:
        """`kv_compression`, whole."""
        assert not isinstance(self.kv_compression, tuple | list | str)
        return self.kv_compression


def make_request(
    sampler: str, num_steps: int | None, guidance_scale: float | None, **parameters: Any
) -> Request:
    """A request whose number of steps and guidance are, where None, those that are usual for the sampler."""
    usual = find_sampler(sampler)
    return Request(
        sampler=sampler,
        num_steps=usual.steps if num_steps is None else num_steps,
        guidance_scale=usual.guidance_scale if guidance_scale is None else guidance_scale,
        **parameters,
    )


def check_dtype(dtype: str) -> None:
    """Raises InvalidInput for a name that is neither "auto" nor of a dtype that models run in."""
    if dtype not in ("auto", *DTYPE_NAMES):
        raise InvalidInput(f"unknown dtype {dtype!r}; one of auto, {', '.join(DTYPE_NAMES)}")


def _check_range(name: str, value: int, lowest: int, highest: int, remedy: str) -> None:
    if not lowest <= value <= highest:
        raise InvalidInput(f"{name} {value} is outside {lowest} to {highest}; {remedy}")


@dataclass(frozen=True)
class Lora:
    """A LoRA or DoRA to merge into the transformer: a file or peft's folder, and how much of it (1: as trained).

    Raises InvalidInput for a missing file and for a strength that is not finite.
    """

    path: Path
    strength: float = 1.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.strength):
            raise InvalidInput(
                f"LoRA strength {self.strength} is not a finite number; 1 is as trained, 0 is off"
            )
        find_lora(self.path)

    def __str__(self) -> str:
        """For a picture's metadata: the file's name and the strength."""
        return f"{self.path.resolve().name}:{self.strength:g}"


def parse_lora(text: str) -> Lora:
    """`FILE` or `FILE:STRENGTH`, such as "style.safetensors:0.8" → Lora. Raises InvalidInput."""
    path, colon, strength = text.rpartition(":")
    if not colon or Path(text).exists():
        return Lora(Path(text))
    try:
        value = float(strength)
    except ValueError as error:
        raise InvalidInput(
            f"LoRA strength {strength!r} of {path} is not a number; write for example {path}:0.8"
        ) from error
    return Lora(Path(path), value)
