"""A request within a limit on memory: the plan, and the pictures.

    generate_within("sigma-1024", Request(("a red house",)), "6GB").images[0].save("house.png")

Knows nothing of the command line.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from pixart_sigma.allocator import keep_freed_memory, return_freed_memory, returning_freed_memory, trim
from pixart_sigma.diffusion.sampling import Denoiser, OnStep, Step
from pixart_sigma.encoders.strips.coding import OnProgress
from pixart_sigma.encoders.text_holds import TextHold, check_text_hold, is_exact
from pixart_sigma.encoders.tiling import Tiling, TilingMethod
from pixart_sigma.encoders.tokenizer import reads_by_itself
from pixart_sigma.errors import PixArtSigmaError
from pixart_sigma.model.int8 import check_int8_device
from pixart_sigma.model.transformer import PixArtTransformer
from pixart_sigma.pipeline.captions import EncodedPrompts
from pixart_sigma.pipeline.device import resolve_device, resolve_dtype
from pixart_sigma.pipeline.guards import check_parts
from pixart_sigma.pipeline.memory.limit import AUTO, Auto, parse_limit
from pixart_sigma.pipeline.memory.machine import free_bytes, own_bytes
from pixart_sigma.pipeline.memory.needs import needs_of
from pixart_sigma.pipeline.memory.plan import Choices, MemoryPlan, Stage, make_plan
from pixart_sigma.pipeline.memory.shortage import explained
from pixart_sigma.pipeline.parts import outline_parts
from pixart_sigma.pipeline.placement.offload import offloaded
from pixart_sigma.pipeline.placement.processes import ALONE, Processes
from pixart_sigma.pipeline.placement.sequence import SplitTransformer
from pixart_sigma.pipeline.profiles import DEFAULT_PROFILE, find_profile
from pixart_sigma.pipeline.request import Lora, Request
from pixart_sigma.pipeline.samplers import DEFAULT_SAMPLER, check_sampler, find_sampler, kinds_of_model
from pixart_sigma.pipeline.text_to_image import Placed, Result, TextToImage
from pixart_sigma.weights.folder import PipelineFolders, find_pipeline

Made = TypeVar("Made")
OnStage = Callable[[Stage], object]
"""Called when a stage begins, before its part is loaded."""


@dataclass(frozen=True)
class Setup:
    """A model and how it runs, as for `TextToImage.from_pretrained`; text_hold and tiling None: as the plan says.

    Raises InvalidInput for an unknown name, MissingDependency for a hold whose package is not installed.
    """

    folders: PipelineFolders
    dtype: str = "auto"
    device: str = "auto"
    loras: tuple[Lora, ...] = ()
    profile: str = DEFAULT_PROFILE
    text_hold: TextHold | None = None
    prompt_cache: Path | None = None
    tiling: TilingMethod | None = None
    int8: bool = False

    def __post_init__(self) -> None:
        find_profile(self.profile)
        if self.text_hold is not None:
            check_text_hold(self.text_hold)
        if self.tiling is not None:
            Tiling(self.tiling)

    @property
    def torch_device(self) -> torch.device:
        """Raises InvalidInput for one that is not there."""
        return resolve_device(self.device)

    @property
    def torch_dtype(self) -> torch.dtype:
        return resolve_dtype(self.dtype, self.torch_device)


def generate_within(
    model: str | Path | PipelineFolders,
    request: Request,
    memory_limit: str = AUTO,
    *,
    on_plan: Callable[[MemoryPlan], object] | None = None,
    on_step: OnStep | None = None,
    **options: Any,
) -> Result:
    """A model, a request and a limit such as "6GB" → pictures, its parts in memory only as the limit allows.

    options: the other fields of `Setup`. on_plan: told how it will be done, before it is. Raises InvalidInput for a
    limit that cannot be met, with the least that can; OutOfMemory if memory runs out all the same.
    """
    folders = model if isinstance(model, PipelineFolders) else find_pipeline(model)
    setup = Setup(folders, **options)
    with returning_freed_memory():
        plan = plan_generation(setup, request, parse_limit(memory_limit))
        if on_plan is not None:
            on_plan(plan)
        return carry_out(plan, setup, request, on_step=on_step)


def plan_generation(
    setup: Setup, request: Request, limit: int | Auto = AUTO, processes: Processes = ALONE
) -> MemoryPlan:
    """How this request runs within a limit in bytes, or within what is free now.

    processes: several that all call this, and have one plan: the first one's. Raises InvalidInput if it cannot run.
    """
    return _from_first(processes, lambda: _plan(setup, request, limit, processes.world))


def _plan(setup: Setup, request: Request, limit: int | Auto, world: int) -> MemoryPlan:
    device, dtype = setup.torch_device, setup.torch_dtype
    adapted = bool(setup.loras)
    if setup.int8:
        check_int8_device(device)  # where blocks visit it, the transformer is loaded elsewhere
    check_sampler(request.sampler, kinds_of_model(setup.folders, adapted=adapted), setup.folders.name)
    import_libraries(setup.text_hold, request.sampler)
    if not reads_by_itself(setup.folders["tokenizer"] / "tokenizer"):
        import_module("transformers.models.auto.tokenization_auto")
    return_freed_memory()
    needs = needs_of(
        setup.folders,
        request,
        find_profile(setup.profile),
        dtype,
        device,
        adapted=adapted,
        process_bytes=own_bytes(device),
        text_hold=setup.text_hold,
        prompt_cache=setup.prompt_cache,
        int8=setup.int8,
        processes=world,
    )
    limited = limit != AUTO
    if limit == AUTO:
        # On a CPU all processes share what is free; each has a GPU of its own.
        limit = free_bytes(device) // (world if device.type == "cpu" else 1)
    choices = Choices(setup.text_hold, setup.tiling, world > 1, limited, _remedies(setup, dtype))
    return make_plan(needs, limit, choices)


def _from_first(processes: Processes, make: Callable[[], Made]) -> Made:
    """What the first process makes, on all of them. Raises PixArtSigmaError if it failed."""
    made = make() if processes.first else None
    try:
        return cast(Made, processes.gathered(made)[0])
    except RuntimeError as error:
        raise PixArtSigmaError("another process of this picture failed, as it says; start again") from error


def carry_out(
    plan: MemoryPlan,
    setup: Setup,
    request: Request,
    *,
    on_stage: OnStage | None = None,
    on_step: OnStep | None = None,
    on_decoded: OnProgress | None = None,
    fast: bool = False,
    processes: Processes = ALONE,
) -> Result:
    """A plan, what it was made for → pictures, with the seeds that they have without a plan.

    on_step: where pictures are made one after the other it counts the steps of all, and False leaves out those that
    have not begun. on_decoded: told what fraction of the decoding is done. fast: keep what is freed for the next
    tensor, which is quicker and takes more than planned. processes: several that all call this and denoise every
    picture together; the first one alone encodes and decodes, and has the pictures. Raises OutOfMemory, and what
    `TextToImage` does.
    """
    (keep_freed_memory if fast else return_freed_memory)()
    if not plan.staged and processes.world == 1:
        if on_stage is not None:
            on_stage("text")
        with explained("text"):
            pipeline = _load(setup, plan)
            encoded = _encode(pipeline, request)
        latents = _denoise(pipeline, encoded, request, plan, on_stage, on_step)
        return _decode(pipeline, latents, request, on_stage, on_decoded)

    check_parts(outline_parts(setup.folders, adapted=bool(setup.loras)))
    encoded = _from_first(processes, lambda: _encoded_apart(plan, setup, request, on_stage))
    with explained("denoise"):
        pipeline = _load(setup, plan, text_encoder=None, autoencoder=None)
    latents = _denoise(pipeline, encoded, request, plan, on_stage, on_step, _placed(plan, setup, processes))
    del pipeline, encoded
    release_memory()
    if not processes.first:
        return Result([], [], latents)
    with explained("decode"):
        pipeline = _load(setup, plan, text_encoder=None, transformer=None)
    return _decode(pipeline, latents, request, on_stage, on_decoded)


def _encoded_apart(
    plan: MemoryPlan, setup: Setup, request: Request, on_stage: OnStage | None
) -> EncodedPrompts:
    """In host memory, when the text encoder has gone."""
    if on_stage is not None:
        on_stage("text")
    with explained("text"):
        pipeline = _load(setup, plan, transformer=None, autoencoder=None)
        encoded = _encode(pipeline, request).to("cpu")
    del pipeline
    release_memory()
    return encoded


def _placed(plan: MemoryPlan, setup: Setup, processes: Processes) -> Placed:
    """Where the transformer computes: where it is, in blocks that visit the device, or with other processes."""

    @contextmanager
    def placed(model: PixArtTransformer) -> Iterator[Denoiser]:
        visiting = offloaded(model, setup.torch_device) if plan.blocks_visit else nullcontext(model)
        with visiting as visited:
            yield SplitTransformer(visited) if processes.world > 1 else visited

    return placed


def release_memory() -> None:
    """Gives back what was let go: to the system on the CPU, to the driver on a GPU."""
    gc.collect()
    trim()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _load(setup: Setup, plan: MemoryPlan, **left_out: None) -> TextToImage:
    options: dict[str, Any] = dict(left_out)
    if "text_encoder" not in left_out:
        options |= {"text_encoder_held": plan.text_hold, "prompt_cache": setup.prompt_cache}
    pipeline = TextToImage.from_pretrained(
        setup.folders,
        # Spelt out: what it is by default depends on the device, which may not be that of the next line.
        dtype=str(setup.torch_dtype).removeprefix("torch."),
        # Blocks that visit the device begin in host memory.
        device="cpu" if plan.blocks_visit and "transformer" not in left_out else setup.device,
        loras=setup.loras if "transformer" not in left_out else (),
        int8=setup.int8 and "transformer" not in left_out,
        profile=setup.profile,
        **options,
    )
    if "autoencoder" not in left_out:
        pipeline.autoencoder.tiling = plan.tiling
    return pipeline


def _encode(pipeline: TextToImage, request: Request) -> EncodedPrompts:
    return pipeline.encode(request.prompts, request.negative_prompt, request.guidance_scale > 1)


def _denoise(
    pipeline: TextToImage,
    encoded: EncodedPrompts,
    request: Request,
    plan: MemoryPlan,
    on_stage: OnStage | None,
    on_step: OnStep | None,
    placed: Placed = nullcontext,
) -> torch.Tensor:
    if on_stage is not None:
        on_stage("denoise")
    with explained("denoise"):
        if plan.pictures_at_once > 1 or len(request.prompts) * request.num_images == 1:
            return pipeline.denoise(
                encoded, request, on_step=on_step, branches_together=plan.branches_together, placed=placed
            )
        latents: list[torch.Tensor] = []
        for index, alone in enumerate(_one_by_one(request)):
            own = encoded.of(index // request.num_images)
            counted = _Counted(on_step, index, len(request.prompts) * request.num_images)
            latents.append(
                pipeline.denoise(
                    own, alone, on_step=counted, branches_together=plan.branches_together, placed=placed
                )
            )
            if counted.stopped:
                break
        return torch.cat(latents)


def _one_by_one(request: Request) -> list[Request]:
    """A request for each of its pictures, with the picture's own seed."""
    return [
        replace(
            request, prompts=(prompt,), num_images=1, seed=request.seed + number * request.num_images + image
        )
        for number, prompt in enumerate(request.prompts)
        for image in range(request.num_images)
    ]


class _Counted:
    """Steps of one of several pictures, counted as those of all; remembers whether it was told to stop."""

    def __init__(self, on_step: OnStep | None, index: int, count: int) -> None:
        self.stopped = False
        self._on_step = on_step
        self._index = index
        self._count = count

    def __call__(self, step: Step) -> bool | None:
        if self._on_step is None:
            return None
        total = self._count * step.total
        answer = self._on_step(replace(step, done=self._index * step.total + step.done, total=total))
        self.stopped = answer is False
        return answer


def _decode(
    pipeline: TextToImage,
    latents: torch.Tensor,
    request: Request,
    on_stage: OnStage | None,
    on_decoded: OnProgress | None,
) -> Result:
    if on_stage is not None:
        on_stage("decode")
    with explained("decode"):
        images = pipeline.decode(latents, on_decoded)
    seeds = [request.seed + index for index in range(len(images))]
    return Result(images, seeds, latents, pipeline.blends(latents))


def import_libraries(hold: TextHold | None, sampler: str) -> None:
    """What loading and running will import beyond this package, so that it is counted, once.

    hold: of the text encoder, see `encoders/text_holds.py`.
    """
    if hold is not None and not is_exact(hold):
        import_module("transformers.models.t5.modeling_t5")
    if sampler != DEFAULT_SAMPLER:
        import_module(find_sampler(sampler).module)


def _remedies(setup: Setup, dtype: torch.dtype) -> dict[Stage, Sequence[str]]:
    """Flags that would make each stage smaller, of those that were not given."""
    narrower = ("--dtype bfloat16",) if dtype == torch.float32 else ()
    text = () if setup.text_hold in (None, "streamed") else ("--text-encoder streamed",)
    smaller = ("a smaller --size",)
    return {
        "text": (*text, *narrower),
        "denoise": (*narrower, *smaller),
        "decode": (*narrower, *smaller),
    }
