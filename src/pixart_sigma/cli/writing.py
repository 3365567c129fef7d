"""Pictures → PNG files that say how they were made."""

from pathlib import Path
from typing import TYPE_CHECKING

from pixart_sigma.encoders.text_holds import is_exact
from pixart_sigma.pipeline.request import Request

if TYPE_CHECKING:
    from pixart_sigma.pipeline.memory.run import Setup
    from pixart_sigma.pipeline.text_to_image import Result


def write_pictures(result: "Result", request: Request, setup: "Setup", paths: list[Path]) -> None:
    """A file for each; `paths` in the order of the pictures."""
    from pixart_sigma import __version__
    from pixart_sigma.pipeline.metadata import write_png

    for path, image, seed in zip(paths, result.images, result.seeds, strict=True):
        parameters = {
            "prompt": request.prompts[0],
            "negative_prompt": request.negative_prompt,
            "seed": seed,
            "steps": request.num_steps,
            "guidance_scale": request.guidance_scale,
            "sampler": request.sampler,
            "size": f"{image.width}x{image.height}",
            "model": setup.folders.name,
            "dtype": str(setup.torch_dtype).removeprefix("torch."),
            "profile": setup.profile,
            "version": __version__,
        }
        write_png(image, path, parameters | _departures(request, setup, result))


def _departures(request: Request, setup: "Setup", result: "Result") -> dict[str, str]:
    """What makes the picture another than the model alone would; how memory was saved exactly is none of it."""
    departures = {}
    if setup.folders.components is not None:
        departures["components"] = setup.folders.components
    if setup.folders.revision is not None:
        departures["revision"] = setup.folders.revision
    if request.compression is not None:
        departures["kv_compression"] = str(request.compression)
    departures |= request.shortcuts.described()
    if setup.int8:
        departures["transformer"] = "int8"
    if setup.loras:
        departures["lora"] = ", ".join(str(lora) for lora in setup.loras)
    if setup.text_hold is not None and not is_exact(setup.text_hold):
        departures["text_encoder"] = setup.text_hold
    if result.blended:  # and not only allowed: a picture of one tile is exact
        departures["vae_tiling"] = "fast"
    return departures
