"""`pixart-sigma generate`: prompt → PNG files. Knows nothing of tensors.

Everything that can be refused cheaply is refused before torch is imported, the output path included.
"""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pixart_sigma.allocator import keep_freed_memory
from pixart_sigma.cli.progress import progress_bar
from pixart_sigma.errors import InvalidInput
from pixart_sigma.pipeline.profiles import DEFAULT_PROFILE, PROFILES, find_profile
from pixart_sigma.pipeline.request import Lora, Request, check_dtype, make_request, parse_lora, parse_window
from pixart_sigma.pipeline.samplers import (
    DEFAULT_GUIDANCE_SCALE,
    DEFAULT_SAMPLER,
    DEFAULT_STEPS,
    OWN_SAMPLERS,
    SAMPLERS,
    check_sampler,
    kinds_of,
    kinds_of_model,
)
from pixart_sigma.resolution import nearest_bucket, parse_aspect, parse_size
from pixart_sigma.weights.catalogue import find_release
from pixart_sigma.weights.folder import (
    POCKET,
    PipelineFolders,
    base_resolution,
    find_pipeline,
)

if TYPE_CHECKING:
    from pixart_sigma.diffusion.sampling import Step
    from pixart_sigma.pipeline.text_to_image import Result


def generate(
    prompt: Annotated[str, typer.Argument(help="What the picture shows.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="PNG file; numbered if there are several pictures.")
    ],
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME|HUB-ID|FOLDER|FILE",
            help="The pocket model, a released model by its short name, a model on the Hub, a folder in diffusers' "
            "layout, or a file of weights (official .pth, .safetensors).",
        ),
    ] = POCKET,
    components: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|HUB-ID|FOLDER",
            help="Where the parts are that the model lacks, such as the text encoder. Default: as released.",
        ),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="The model's branch, tag or commit on the Hub. Default: the newest.")
    ] = None,
    profile: Annotated[
        str, typer.Option(help=f"Whose conventions decide where they differ: {' or '.join(PROFILES)}.")
    ] = DEFAULT_PROFILE,
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Pixels, multiples of 16. Default: the model's own.")
    ] = None,
    aspect: Annotated[
        str | None, typer.Option(metavar="W:H", help="Snaps to the nearest training size of the model.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help=f"Denoising steps. Default: the sampler's, mostly {DEFAULT_STEPS}.")
    ] = None,
    guidance_scale: Annotated[
        float | None,
        typer.Option(
            help=f"How closely to follow the prompt; 1: off. Default: {DEFAULT_GUIDANCE_SCALE}, or the sampler's."
        ),
    ] = None,
    negative_prompt: Annotated[str, typer.Option(help="What the picture shall not show.")] = "",
    seed: Annotated[int, typer.Option(help="Picture i of several has seed + i.")] = 0,
    num_images: Annotated[int, typer.Option(help="Pictures to make.")] = 1,
    sampler: Annotated[
        str | None,
        typer.Option(help=f"One of {', '.join(SAMPLERS)}. Default: the model's, mostly {DEFAULT_SAMPLER}."),
    ] = None,
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

    find_profile(profile).check_negative_prompt(negative_prompt)
    height, width, ratio = _parse_size(size, aspect)
    parameters: dict[str, Any] = {
        "prompts": (prompt,),
        "negative_prompt": negative_prompt,
        "height": height,
        "width": width,
        "seed": seed,
        "num_images": num_images,
        "kv_compression": parse_window(kv_compression) if kv_compression is not None else None,
    }
    # Checked before a model is fetched, which may take an hour; the default sampler allows what any other allows.
    loras = [parse_lora(text) for text in lora or []]
    release = find_release(model)
    known_kinds = kinds_of(release, {}, adapted=bool(loras)) if release is not None else None
    own_sampler = OWN_SAMPLERS[known_kinds[0]] if known_kinds is not None else DEFAULT_SAMPLER
    make_request(sampler or own_sampler, steps, guidance_scale, **parameters)
    if release is not None and known_kinds is not None:
        check_sampler(sampler or own_sampler, known_kinds, release.name)
    check_dtype(dtype)
    paths = numbered(output, num_images)
    for path in paths:
        check_output(path)
    if device != "auto":
        _check_device(device)
    folders = find_pipeline(model, components, revision)
    if ratio is not None:
        parameters["height"], parameters["width"] = nearest_bucket(ratio, base_resolution(folders))
    kinds = kinds_of_model(folders, adapted=bool(loras))
    request = make_request(sampler or OWN_SAMPLERS[kinds[0]], steps, guidance_scale, **parameters)
    check_sampler(request.sampler, kinds, folders.name)
    keep_freed_memory()
    result = _generate_with_progress(folders, dtype, device, loras, profile, request)
    _write(result, request, loras, paths, {"model": folders.name, "profile": profile})
    for path, image_seed in zip(paths, result.seeds, strict=True):
        print(f"{path}  seed {image_seed}")
    print(f"{time.perf_counter() - started:.1f} s")


def _parse_size(size: str | None, aspect: str | None) -> tuple[int | None, int | None, float | None]:
    """(height, width) in pixels, or height / width, or nothing for the model's own size."""
    if size is not None and aspect is not None:
        raise InvalidInput(f"--size {size} and --aspect {aspect} exclude each other; give one of them")
    if size is not None:
        return *parse_size(size), None
    return None, None, parse_aspect(aspect) if aspect is not None else None


def _check_device(device: str) -> None:
    """Only torch knows: it is imported before the model is fetched, instead of after."""
    with _uncollected():
        from pixart_sigma.pipeline.device import resolve_device
    resolve_device(device)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Importing torch and its friends makes a million objects and no garbage: looking for some, now and once more on
    leaving, would take a third of a short command's time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _generate_with_progress(
    folders: PipelineFolders, dtype: str, device: str, loras: list[Lora], profile: str, request: Request
) -> "Result":
    with progress_bar() as progress:
        task = progress.add_task("loading", total=request.num_steps)
        with _uncollected():
            from pixart_sigma.pipeline.text_to_image import TextToImage

            pipeline = TextToImage.from_pretrained(
                folders, dtype=dtype, device=device, loras=loras, profile=profile
            )
        progress.update(task, description="denoising")

        def show(step: "Step") -> None:
            progress.update(task, completed=step.done, total=step.total)

        result: Result = pipeline.generate(request, show)
        return result


def _write(
    result: "Result", request: Request, loras: list[Lora], paths: list[Path], made_by: dict[str, str]
) -> None:
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
            **made_by,
            "version": __version__,
        }
        if request.kv_compression is not None:
            parameters["kv_compression"] = f"{request.kv_compression[0]}x{request.kv_compression[1]}"
        if loras:
            parameters["lora"] = ", ".join(str(lora) for lora in loras)
        write_png(image, path, parameters)
