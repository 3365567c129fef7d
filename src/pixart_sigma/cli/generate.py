"""`pixart-sigma generate`: prompt → PNG files. Knows nothing of tensors.

Everything that can be refused cheaply is refused before torch is imported, the output path included.
"""

import gc
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pixart_sigma.allocator import keep_freed_memory
from pixart_sigma.cli.progress import progress_bar
from pixart_sigma.errors import InvalidInput
from pixart_sigma.pipeline.request import (
    DEFAULT_GUIDANCE_SCALE,
    DEFAULT_STEPS,
    Lora,
    Request,
    parse_lora,
    parse_window,
)
from pixart_sigma.pipeline.samplers import DEFAULT_SAMPLER, SAMPLERS
from pixart_sigma.resolution import nearest_bucket, parse_aspect, parse_size
from pixart_sigma.weights.folder import POCKET, base_resolution, find_pipeline

if TYPE_CHECKING:
    from pixart_sigma.pipeline.text_to_image import Result


def generate(
    prompt: Annotated[str, typer.Argument(help="What the picture shows.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="PNG file; numbered if there are several pictures.")
    ],
    model: Annotated[
        str,
        typer.Option(
            metavar="pocket|FOLDER", help="The pocket model, or a folder in diffusers' pipeline layout."
        ),
    ] = POCKET,
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Pixels, multiples of 16. Default: the model's own.")
    ] = None,
    aspect: Annotated[
        str | None, typer.Option(metavar="W:H", help="Snaps to the nearest training size of the model.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Denoising steps.")] = DEFAULT_STEPS,
    guidance_scale: Annotated[float, typer.Option(help="How closely to follow the prompt; 1: off.")] = (
        DEFAULT_GUIDANCE_SCALE
    ),
    negative_prompt: Annotated[str, typer.Option(help="What the picture shall not show.")] = "",
    seed: Annotated[int, typer.Option(help="Picture i of several has seed + i.")] = 0,
    num_images: Annotated[int, typer.Option(help="Pictures to make.")] = 1,
    sampler: Annotated[str, typer.Option(help=f"One of {', '.join(SAMPLERS)}.")] = DEFAULT_SAMPLER,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, or auto: float32 on the CPU.")] = "auto",
    device: Annotated[str, typer.Option(help="As torch names it, or auto: a GPU if there is one.")] = "auto",
    kv_compression: Annotated[
        str | None,
        typer.Option(
            metavar="HxW", help="Average keys and values over HxW tokens in the deeper half of the blocks."
        ),
    ] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE[:STRENGTH]",
            help="A LoRA or DoRA: .safetensors file or peft's folder; strength 1: as trained. Several add up.",
        ),
    ] = None,
) -> None:
    """Make pictures from a prompt."""
    started = time.perf_counter()
    from pixart_sigma.pipeline.metadata import check_output, numbered

    folder = find_pipeline(model)
    height, width = _choose_size(size, aspect, folder)
    request = Request(
        prompts=(prompt,),
        negative_prompt=negative_prompt,
        height=height,
        width=width,
        num_steps=steps,
        guidance_scale=guidance_scale,
        seed=seed,
        num_images=num_images,
        sampler=sampler,
        kv_compression=parse_window(kv_compression) if kv_compression is not None else None,
    )
    loras = [parse_lora(text) for text in lora or []]
    paths = numbered(output, num_images)
    for path in paths:
        check_output(path)
    keep_freed_memory()
    result = _generate_with_progress(model, dtype, device, loras, request)
    _write(result, request, loras, paths, POCKET if model == POCKET else folder.resolve().name)
    for path, image_seed in zip(paths, result.seeds, strict=True):
        print(f"{path}  seed {image_seed}")
    print(f"{time.perf_counter() - started:.1f} s")


def _choose_size(size: str | None, aspect: str | None, folder: Path) -> tuple[int, int] | tuple[None, None]:
    """(height, width) in pixels, or (None, None) for the model's own."""
    if size is not None and aspect is not None:
        raise InvalidInput(f"--size {size} and --aspect {aspect} exclude each other; give one of them")
    if size is not None:
        return parse_size(size)
    if aspect is not None:
        return nearest_bucket(parse_aspect(aspect), base_resolution(folder))
    return None, None


def _generate_with_progress(
    model: str, dtype: str, device: str, loras: list[Lora], request: Request
) -> "Result":
    with progress_bar() as progress:
        task = progress.add_task("loading", total=request.num_steps)
        # Importing torch and its friends makes a million objects and no garbage: looking for some, now and
        # once more on leaving, would take a third of a short command's time.
        gc.disable()
        try:
            from pixart_sigma.pipeline.text_to_image import TextToImage

            pipeline = TextToImage.from_pretrained(model, dtype=dtype, device=device, loras=loras)
        finally:
            gc.freeze()
            gc.enable()
        progress.update(task, description="denoising")
        result: Result = pipeline.generate(
            request, lambda done, total: progress.update(task, completed=done, total=total)
        )
        return result


def _write(result: "Result", request: Request, loras: list[Lora], paths: list[Path], model_name: str) -> None:
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
            "model": model_name,
            "version": __version__,
        }
        if request.kv_compression is not None:
            parameters["kv_compression"] = f"{request.kv_compression[0]}x{request.kv_compression[1]}"
        if loras:
            parameters["lora"] = ", ".join(str(lora) for lora in loras)
        write_png(image, path, parameters)
