"""One picture by a program that ends with it: `python -m pixart_sigma.benchmark.start.driver ARGUMENTS`.

Nothing heavy is imported before the clock is asked, and everything is imported as the command or a user's script would.
The answer, the last line and JSON, holds readings of the clock that all processes of a machine share: when the side's
library was imported (the command imports as it goes, and does not tell), when the first denoising step was done, and
when the picture was written. Knows nothing of when the process was started.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from importlib import import_module
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

    {"command": _command, "ours": _ours, "diffusers": _theirs}[arguments["side"]](arguments, stamp)
    stamp("written")
    sys.stdout.write(json.dumps(stamps) + "\n")
    return 0


def _command(arguments: Arguments, stamp: Callable[[str], None]) -> None:
    """The command as it is; only its progress bar, which it tells of every step, is listened to.

    By name, as a program from outside: no module of this layer knows the command line.
    """
    run = import_module("pixart_sigma.cli.app").run
    module = import_module("pixart_sigma.cli.generate")
    shown = module.progress_bar

    def listened_to(*given: Any) -> Any:
        bar = shown(*given)
        update = bar.update

        def stamped(task: Any, **changes: Any) -> None:
            if "completed" in changes:
                stamp("first_step")
            update(task, **changes)

        bar.update = stamped
        return bar

    module.progress_bar = listened_to  # type: ignore[attr-defined]
    try:
        status = run(arguments["arguments"])
    finally:
        module.progress_bar = shown  # type: ignore[attr-defined]
    if status:
        raise SystemExit(status)


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
        if arguments["device"] == "cuda":
            torch.cuda.synchronize()  # the step was launched, no more
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
