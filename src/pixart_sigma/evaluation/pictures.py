"""A model's pictures of a list of prompts, as PNG files that say how they were made; what is there is kept.

Knows nothing of what is measured on them.
"""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

import pixart_sigma
from pixart_sigma.evaluation.features.digest import weights_digest
from pixart_sigma.evaluation.prompts import Prompt
from pixart_sigma.pipeline.kv_compression import KVCompressionRequest
from pixart_sigma.pipeline.metadata import write_png
from pixart_sigma.pipeline.noise import picture_generators, seeded_noise
from pixart_sigma.pipeline.request import MAX_IMAGES, Request
from pixart_sigma.pipeline.shortcuts import NO_SHORTCUTS, Shortcuts
from pixart_sigma.pipeline.text_to_image import TextToImage
from pixart_sigma.resolution import LATENT_SCALE

FOLDER = "images"
_PIXELS_AT_ONCE = 8 * 256 * 256
_SECONDS = "seconds"
"""The one thing that a picture says of itself and that may differ when it is made again."""
_UNREADABLE = (OSError, SyntaxError, ValueError)

Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Making:
    """How pictures are made: the model's name and its weights' digest, the size in pixels, steps, guidance
    and the sampler; what is left out of sampling, and whether the transformer is in 8 bits.
    """

    model: str
    weights: str
    height: int
    width: int
    num_steps: int
    guidance_scale: float
    sampler: str
    kv_compression: KVCompressionRequest | None = None
    shortcuts: Shortcuts = NO_SHORTCUTS
    int8: bool = False

    def metadata(self, prompt: Prompt) -> dict[str, str]:
        """What the prompt's picture says of itself."""
        departures = self.shortcuts.described()
        if self.kv_compression is not None:
            departures["kv_compression"] = str(self.kv_compression)
        if self.int8:
            departures["transformer"] = "int8"
        return departures | {
            "prompt": prompt.text,
            "seed": str(prompt.seed),
            "steps": str(self.num_steps),
            "guidance_scale": str(self.guidance_scale),
            "sampler": self.sampler,
            "size": f"{self.width}x{self.height}",
            "model": self.model,
            "weights": self.weights,
            "version": pixart_sigma.__version__,
        }


def pipeline_digest(pipeline: TextToImage) -> str:
    """A digest of all weights and configurations, so that no picture of others is kept."""
    parts = {
        "text_encoder": pipeline.text_encoder.model,
        "transformer": pipeline.transformer,
        "vae": pipeline.autoencoder.model,
    }
    weights = weights_digest(
        {
            f"{part}.{name}": value
            for part, model in parts.items()
            for name, value in model.state_dict().items()
        }
    )
    configurations = [
        repr(pipeline.transformer.config),
        sorted(pipeline.scheduler_config.items()),
        repr(pipeline.autoencoder.model.config),
        repr(pipeline.text_encoder.model.config),
    ]
    return hashlib.blake2b(f"{weights} {configurations}".encode(), digest_size=6).hexdigest()


def picture_file(output: Path, prompt: Prompt) -> Path:
    """Where the prompt's picture is."""
    return output / FOLDER / f"{prompt.id}.png"


def missing(output: Path, prompts: Sequence[Prompt], making: Making) -> list[Prompt]:
    """Those whose picture is not there, is not whole, or was made in another way."""
    return [
        prompt for prompt in prompts if not _is_there(picture_file(output, prompt), making.metadata(prompt))
    ]


def _is_there(path: Path, wanted: dict[str, str]) -> bool:
    found = _metadata(path)
    return found.pop(_SECONDS, None) is not None and found == wanted


def make_pictures(
    pipeline: TextToImage, output: Path, prompts: Sequence[Prompt], making: Making, report: Report
) -> None:
    """Write the pictures of `prompts`, some at a time; `report(done, total)` after each."""
    (output / FOLDER).mkdir(parents=True, exist_ok=True)
    size = making.height, making.width
    shape = (pipeline.transformer.config.in_channels, *(side // LATENT_SCALE for side in size))
    at_once = min(MAX_IMAGES, max(1, _PIXELS_AT_ONCE // (making.height * making.width)))
    for first in range(0, len(prompts), at_once):
        some = prompts[first : first + at_once]
        started = time.perf_counter()
        # Each prompt has its own seed, whichever others are made beside it.
        noise = seeded_noise(picture_generators([prompt.seed for prompt in some]), shape)
        request = Request(
            prompts=tuple(prompt.text for prompt in some),
            height=making.height,
            width=making.width,
            num_steps=making.num_steps,
            guidance_scale=making.guidance_scale,
            sampler=making.sampler,
            kv_compression=making.kv_compression,
            shortcuts=making.shortcuts,
        )
        images = pipeline.generate(request, noise=noise).images
        seconds = (time.perf_counter() - started) / len(some)
        for prompt, image in zip(some, images, strict=True):
            write_png(
                image,
                picture_file(output, prompt),
                making.metadata(prompt) | {_SECONDS: f"{seconds:.3f}"},
            )
        report(first + len(some), len(prompts))


def open_pictures(output: Path, prompts: Sequence[Prompt]) -> Iterator[NDArray[np.uint8]]:
    """Each prompt's picture, (H, W, 3) uint8."""
    for prompt in prompts:
        with Image.open(picture_file(output, prompt)) as image:
            yield np.asarray(image.convert("RGB"))


def seconds_per_picture(output: Path, prompts: Sequence[Prompt]) -> float:
    """The median over the pictures, as they say themselves."""
    return statistics.median(float(_metadata(picture_file(output, prompt))[_SECONDS]) for prompt in prompts)


def _metadata(path: Path) -> dict[str, str]:
    """What a PNG says of itself; nothing if it is missing or not whole."""
    try:
        with PngImageFile(path) as image:
            image.load()
            return {key: str(value) for key, value in image.text.items()}
    except _UNREADABLE:
        return {}
