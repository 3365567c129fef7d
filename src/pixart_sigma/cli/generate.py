"""`pixart-sigma generate`: prompt → PNG files. Knows nothing of tensors.

Everything that can be refused cheaply is refused before torch is imported, the output path included.
"""

import gc
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pixart_sigma.cli.parsing import check_ways, parse_compression, parse_frame
from pixart_sigma.cli.progress import progress_bar
from pixart_sigma.cli.several import check_processes, is_one_of_several, same_command
from pixart_sigma.cli.writing import write_pictures
from pixart_sigma.encoders.text_holds import TEXT_HOLDS
from pixart_sigma.errors import InvalidInput
from pixart_sigma.pipeline.kv_compression import BLOCK_NAMES, OPERATORS
from pixart_sigma.pipeline.memory.limit import AUTO, Auto, parse_limit
from pixart_sigma.pipeline.profiles import DEFAULT_PROFILE, PROFILES, find_profile
from pixart_sigma.pipeline.request import Request, check_dtype, make_request, parse_lora
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
from pixart_sigma.pipeline.shortcuts import parse_shortcuts
from pixart_sigma.resolution import BASES, nearest_bucket
from pixart_sigma.weights.catalogue import find_release
from pixart_sigma.weights.folder import POCKET, base_resolution, find_pipeline

if TYPE_CHECKING:
    from pixart_sigma.diffusion.sampling import Step
    from pixart_sigma.pipeline.memory.plan import MemoryPlan, Stage
    from pixart_sigma.pipeline.memory.run import Setup
    from pixart_sigma.pipeline.text_to_image import Result

MODEL, PICTURE, SAMPLING, MEMORY, SHORTCUTS, COMPRESSION = (
    "Model",
    "Picture",
    "Sampling",
    "Memory and device",
    "Shortcuts (not exact)",
    "Key/value compression",
)
"""The groups of options in the help."""
PATIENCE = timedelta(minutes=30)
"""How long one of several processes waits for the others: for the first one to encode, or for an attention."""
STAGES: Mapping["Stage", str] = {"text": "encoding", "denoise": "denoising", "decode": "decoding"}


def generate(
    context: typer.Context,
    prompt: Annotated[str, typer.Argument(help="What the picture shows.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="PNG file; numbered if there are several pictures."),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME|HUB-ID|FOLDER|FILE",
            help="The pocket model, a released model by its short name, a model on the Hub, a folder in diffusers' "
            "layout, or a file of weights (official .pth, .safetensors).",
            rich_help_panel=MODEL,
        ),
    ] = POCKET,
    components: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|HUB-ID|FOLDER",
            help="Where the parts are that the model lacks, such as the text encoder. Default: as released.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    revision: Annotated[
        str | None,
        typer.Option(
            help="The model's branch, tag or commit on the Hub. Default: the newest.", rich_help_panel=MODEL
        ),
    ] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE[:STRENGTH]",
            help="A LoRA or DoRA: .safetensors file or peft's folder; strength 1: as trained. Several add up.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    profile: Annotated[
        str,
        typer.Option(
            help=f"Whose conventions decide where they differ: {' or '.join(PROFILES)}.",
            rich_help_panel=MODEL,
        ),
    ] = DEFAULT_PROFILE,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="WxH",
            help="Pixels, multiples of 16. Default: the model's own.",
            rich_help_panel=PICTURE,
        ),
    ] = None,
    aspect: Annotated[
        str | None,
        typer.Option(
            metavar="W:H", help="Snaps to the nearest training size of the base.", rich_help_panel=PICTURE
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"Whose training sizes: {', '.join(BASES)}. Default: the model's own. Alone: its square.",
            rich_help_panel=PICTURE,
        ),
    ] = None,
    num_images: Annotated[int, typer.Option(help="Pictures to make.", rich_help_panel=PICTURE)] = 1,
    seed: Annotated[
        int, typer.Option(help="Picture i of several has seed + i.", rich_help_panel=PICTURE)
    ] = 0,
    negative_prompt: Annotated[
        str, typer.Option(help="What the picture shall not show.", rich_help_panel=SAMPLING)
    ] = "",
    steps: Annotated[
        int | None,
        typer.Option(
            help=f"Denoising steps. Default: the sampler's, mostly {DEFAULT_STEPS}.",
            rich_help_panel=SAMPLING,
        ),
    ] = None,
    guidance_scale: Annotated[
        float | None,
        typer.Option(
            help=f"How closely to follow the prompt; 1: off. Default: {DEFAULT_GUIDANCE_SCALE}, or the sampler's.",
            rich_help_panel=SAMPLING,
        ),
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            help=f"One of {', '.join(SAMPLERS)}. Default: the model's, mostly {DEFAULT_SAMPLER}.",
            rich_help_panel=SAMPLING,
        ),
    ] = None,
    dtype: Annotated[
        str,
        typer.Option(help="float32, bfloat16, or auto: float32 on the CPU.", rich_help_panel=MEMORY),
    ] = "auto",
    device: Annotated[
        str, typer.Option(help="As torch names it, or auto: a GPU if there is one.", rich_help_panel=MEMORY)
    ] = "auto",
    nproc_per_node: Annotated[
        int | None,
        typer.Option(
            help="Several processes on this machine, one a GPU, that make each picture together.",
            rich_help_panel=MEMORY,
        ),
    ] = None,
    memory_limit: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE|auto",
            help="Such as 6GB; auto: what is free now, which is the default. What does not fit at once is done in "
            "parts, and the pictures are the same.",
            rich_help_panel=MEMORY,
        ),
    ] = None,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan",
            help="Print how it would be done and in how much memory; leave. Of a model on the Hub this fetches the "
            "files that are not here yet.",
            rich_help_panel=MEMORY,
        ),
    ] = False,
    text_encoder: Annotated[
        str | None,
        typer.Option(
            metavar="HOW",
            help=f"How it is held: {', '.join(TEXT_HOLDS)}. Exact: resident, streamed; one of them is the default.",
            rich_help_panel=MEMORY,
        ),
    ] = None,
    prompt_cache: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Keep encoded prompts there, and take known ones.", rich_help_panel=MEMORY
        ),
    ] = None,
    vae_tiling: Annotated[
        str | None,
        typer.Option(
            metavar="exact|fast",
            help="Decode in parts: exact, or in blended tiles, which shift tones. Default: whole, or exact.",
            rich_help_panel=MEMORY,
        ),
    ] = None,
    guidance_interval: Annotated[
        str | None,
        typer.Option(
            metavar="LOW:HIGH",
            help="Guide only between these fractions of the sampling, such as 0.1:0.8; 0 is the noisiest step.",
            rich_help_panel=SHORTCUTS,
        ),
    ] = None,
    freeze_captions_after: Annotated[
        int | None,
        typer.Option(
            metavar="STEPS",
            help="After so many steps keep what each block read of the prompt, and guide no more.",
            rich_help_panel=SHORTCUTS,
        ),
    ] = None,
    reuse_blocks: Annotated[
        str | None,
        typer.Option(
            metavar="N|FILE",
            help="Compute the layers of all blocks at every N-th step only, or as a schedule (.toml, .json) says.",
            rich_help_panel=SHORTCUTS,
        ),
    ] = None,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8", help="The transformer's blocks multiply in 8 bits.", rich_help_panel=SHORTCUTS
        ),
    ] = False,
    kv_compression: Annotated[
        str | None,
        typer.Option(
            metavar="HxW",
            help="One key and value for HxW tokens, such as 2x2: faster for large pictures.",
            rich_help_panel=COMPRESSION,
        ),
    ] = None,
    kv_compression_operator: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"One of {', '.join(OPERATORS)}; conv needs a model trained with it. Default: average.",
            rich_help_panel=COMPRESSION,
        ),
    ] = None,
    kv_compression_blocks: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|LIST",
            help=f"One of {', '.join(BLOCK_NAMES)}, or numbers from 0, such as 14-27 or 0,3,5. Default: deep.",
            rich_help_panel=COMPRESSION,
        ),
    ] = None,
) -> None:
    """Make pictures from a prompt."""
    started = time.perf_counter()
    from pixart_sigma.pipeline.metadata import check_output, numbered

    find_profile(profile).check_negative_prompt(negative_prompt)
    height, width, ratio, base_side = parse_frame(size, aspect, base)
    parameters: dict[str, Any] = {
        "prompts": (prompt,),
        "negative_prompt": negative_prompt,
        "height": height,
        "width": width,
        "seed": seed,
        "num_images": num_images,
        "kv_compression": parse_compression(kv_compression, kv_compression_operator, kv_compression_blocks),
        "shortcuts": parse_shortcuts(guidance_interval, freeze_captions_after, reuse_blocks),
    }
    # Checked before a model is fetched, which may take an hour; the default sampler allows what any other allows.
    loras = [parse_lora(text) for text in lora or []]
    limit = parse_limit(memory_limit) if memory_limit is not None else AUTO
    if nproc_per_node is not None:
        if plan:
            raise InvalidInput("--nproc-per-node is ignored with --plan, which does no work; remove it")
        check_processes(nproc_per_node)
    hold, tiling = check_ways(text_encoder, vae_tiling)
    release = find_release(model)
    known_kinds = kinds_of(release, {}, adapted=bool(loras)) if release is not None else None
    own_sampler = OWN_SAMPLERS[known_kinds[0]] if known_kinds is not None else DEFAULT_SAMPLER
    make_request(sampler or own_sampler, steps, guidance_scale, **parameters)
    if release is not None and known_kinds is not None:
        check_sampler(sampler or own_sampler, known_kinds, release.name)
    check_dtype(dtype)
    if output is None and not plan:
        raise InvalidInput("Missing option '--output' / '-o'; see pixart-sigma --help")
    paths = numbered(output, num_images) if output is not None else []
    for path in paths:
        check_output(path)
    nproc = nproc_per_node or 1
    if device != "auto" and not (device == "cuda" and (nproc > 1 or is_one_of_several())):
        _check_device(device)  # of several processes each tries out its own GPU
    folders = find_pipeline(model, components, revision)
    if ratio is not None:
        bucket = nearest_bucket(ratio, base_side or base_resolution(folders))
        parameters["height"], parameters["width"] = bucket
    kinds = kinds_of_model(folders, adapted=bool(loras))
    request = make_request(sampler or OWN_SAMPLERS[kinds[0]], steps, guidance_scale, **parameters)
    check_sampler(request.sampler, kinds, folders.name)
    with _uncollected():
        from pixart_sigma.pipeline.memory.run import Setup

    setup = Setup(folders, dtype, device, tuple(loras), profile, hold, prompt_cache, tiling, int8)
    if nproc > 1:
        from pixart_sigma.pipeline.placement.launch import launch

        raise typer.Exit(launch(nproc, same_command(context, {"nproc_per_node"})))
    result = _generate_with_progress(setup, request, limit, plan_only=plan, tells=memory_limit is not None)
    if result is None or not result.images:
        return
    write_pictures(result, request, setup, paths)
    for path, image_seed in zip(paths, result.seeds, strict=True):
        print(f"{path}  seed {image_seed}")
    print(f"{time.perf_counter() - started:.1f} s")


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
    setup: "Setup", request: Request, limit: int | Auto, *, plan_only: bool, tells: bool
) -> "Result | None":
    """The pictures, or nothing but the plan. It is printed if it was asked for, or is not the usual one.

    As one of several processes: the first one speaks and has the pictures.
    """
    with _uncollected():
        from pixart_sigma.pipeline.placement.processes import joined
    with joined(setup.device, PATIENCE) as processes, progress_bar(processes.first) as progress:
        setup = replace(setup, device=str(processes.device))
        task = progress.add_task("planning", total=request.num_steps)
        with _uncollected():
            from pixart_sigma.pipeline.memory.run import carry_out, plan_generation

            plan = plan_generation(setup, request, limit, processes)
        if processes.first and (plan_only or tells or plan.staged):
            _print_plan(plan, setup)
        if plan_only:
            return None

        def show(step: "Step") -> None:
            progress.update(task, completed=step.done, total=step.total)

        def name(stage: "Stage") -> None:
            progress.update(task, description=STAGES[stage])

        def show_decoded(fraction: float) -> None:
            progress.update(task, completed=round(100 * fraction), total=100)

        fast = not tells and plan.may_keep
        result: Result = carry_out(
            plan,
            setup,
            request,
            on_stage=name,
            on_step=show,
            on_decoded=show_decoded,
            fast=fast,
            processes=processes,
        )
        return result


def _print_plan(plan: "MemoryPlan", setup: "Setup") -> None:
    from pixart_sigma.pipeline.memory.table import plan_lines

    dtype = str(setup.torch_dtype).removeprefix("torch.")
    for line in plan_lines(plan, str(setup.torch_device), dtype):
        print(line)
