"""One picture by a program that ends with it: `python -m pixart_sigma.benchmark.start.driver ARGUMENTS`.

Nothing heavy is imported before the clock is asked, and everything is imported as a user's script would. The answer, a
line of JSON, holds readings of the clock that all processes of a machine share: when the side's library was imported,
when the first denoising step was done, and when the picture was written. Knows nothing of when the process was started.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

SEED = 0

Stamps = dict[str, float]
Arguments = dict[str, Any]


def main() -> int:
    """Make the picture, tell when."""
    arguments: Arguments = json.loads(sys.argv[1])
    stamps: Stamps = {}

    def stamp(name: str) -> None:
        stamps.setdefault(name, time.monotonic())

    {"ours": _ours, "diffusers": _theirs}[arguments["side"]](arguments, stamp)
    stamp("written")
    sys.stdout.write(json.dumps(stamps) + "\n")
    return 0


def _ours(arguments: Arguments, stamp: Callable[[str], None]) -> None:
    from pixart_sigma import TextToImage

    stamp("imported")
    model = TextToImage.from_pretrained(arguments["model"], dtype="float32", device=arguments["device"])

    def on_step(step: object) -> None:
        stamp("first_step")

    result = model(
        arguments["prompt"],
        height=arguments["pixels"],
        width=arguments["pixels"],
        num_steps=arguments["num_steps"],
        guidance_scale=arguments["guidance_scale"],
        seed=SEED,
        on_step=on_step,
    )
    result.images[0].save(arguments["picture"])


def _theirs(arguments: Arguments, stamp: Callable[[str], None]) -> None:
    import torch
    from diffusers import PixArtSigmaPipeline

    stamp("imported")
    pipeline = PixArtSigmaPipeline.from_pretrained(
        arguments["model"], dtype=torch.float32, local_files_only=True
    ).to(arguments["device"])
    pipeline.set_progress_bar_config(disable=True)

    def callback(step: int, timestep: object, latents: object) -> None:
        stamp("first_step")

    picture = pipeline(
        arguments["prompt"],
        height=arguments["pixels"],
        width=arguments["pixels"],
        num_inference_steps=arguments["num_steps"],
        guidance_scale=arguments["guidance_scale"],
        # A list of one on the CPU: the noise is then ours, on every device.
        generator=[torch.Generator().manual_seed(SEED)],
        clean_caption=False,
        use_resolution_binning=False,
        callback=callback,
    ).images[0]
    picture.save(arguments["picture"])


if __name__ == "__main__":
    sys.exit(main())
