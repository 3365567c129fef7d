import errno
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from comparison import relative_error
from pixart_sigma.diffusion.sampling import Step
from pixart_sigma.encoders.text import TextEncoder
from pixart_sigma.encoders.tiling import Tiling
from pixart_sigma.errors import InvalidInput, OutOfMemory, WeightsError
from pixart_sigma.pipeline.memory import run
from pixart_sigma.pipeline.memory.plan import MemoryPlan
from pixart_sigma.pipeline.memory.run import Setup, carry_out, generate_within, plan_generation
from pixart_sigma.pipeline.memory.shortage import explained
from pixart_sigma.pipeline.request import MAX_SEED, Request
from pixart_sigma.pipeline.text_to_image import TextToImage
from pixart_sigma.weights.folder import find_pipeline
from tiny_pipeline import write_text_encoder

REQUEST = Request(("a red house", "a small cactus"), height=64, width=48, num_steps=2, num_images=2, seed=5)
GIB = 2**30


@pytest.fixture(scope="module")
def setup(tiny_folder: Path) -> Setup:
    return Setup(find_pipeline(tiny_folder), device="cpu")


@pytest.fixture(scope="module")
def usual(setup: Setup) -> Any:
    return TextToImage.from_pretrained(setup.folders, device="cpu").generate(REQUEST)


@pytest.fixture(scope="module")
def resident(setup: Setup) -> MemoryPlan:
    return plan_generation(setup, REQUEST, 64 * GIB)


def test_with_memory_enough_everything_is_resident(setup: Setup, resident: MemoryPlan, usual: Any) -> None:
    assert not resident.staged
    result = carry_out(resident, setup, REQUEST)
    assert torch.equal(result.latents, usual.latents)
    assert result.seeds == usual.seeds == [5, 6, 7, 8]
    assert [image.tobytes() for image in result.images] == [image.tobytes() for image in usual.images]


@pytest.mark.parametrize("hold", ["resident", "streamed"])
def test_stage_by_stage_is_the_same_picture_bit_for_bit(
    hold: Any, setup: Setup, resident: MemoryPlan, usual: Any
) -> None:
    stages: list[str] = []
    staged = replace(resident, staged=True, text_hold=hold)
    result = carry_out(staged, setup, REQUEST, on_stage=stages.append)
    assert stages == ["text", "denoise", "decode"]
    assert torch.equal(result.latents, usual.latents)
    assert [image.tobytes() for image in result.images] == [image.tobytes() for image in usual.images]


def test_pictures_and_branches_one_after_the_other_are_equal_to_rounding(
    setup: Setup, resident: MemoryPlan, usual: Any
) -> None:
    counts: list[tuple[int, int]] = []

    def count(step: Step) -> None:
        counts.append((step.done, step.total))

    apart = replace(resident, staged=True, pictures_at_once=1, branches_together=False)
    result = carry_out(apart, setup, REQUEST, on_step=count)
    assert relative_error(result.latents, usual.latents) <= 1e-5
    assert result.seeds == usual.seeds
    assert counts == [(done, 8) for done in range(1, 9)]


def test_strips_are_the_same_to_rounding(setup: Setup, resident: MemoryPlan, usual: Any) -> None:
    strips = replace(resident, staged=True, tiling=Tiling("exact", 2**20))
    told: list[float] = []
    result = carry_out(strips, setup, REQUEST, on_decoded=told.append)
    assert told == sorted(told)
    assert told[-1] == 1
    assert len(told) > 2 * len(result.images)
    for image, expected in zip(result.images, usual.images, strict=True):
        levels = [
            torch.frombuffer(bytearray(each.tobytes()), dtype=torch.uint8) for each in (image, expected)
        ]
        assert (levels[0].int() - levels[1].int()).abs().max() <= 1


def test_only_the_part_of_a_stage_is_loaded(
    setup: Setup, resident: MemoryPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[set[str]] = []
    original = TextToImage.from_pretrained

    def watched(*arguments: Any, **options: Any) -> TextToImage:
        parts = {"text_encoder", "transformer", "autoencoder"}
        loaded.append({part for part in parts if options.get(part, "load") is not None})
        return original(*arguments, **options)

    monkeypatch.setattr(TextToImage, "from_pretrained", watched)
    carry_out(replace(resident, staged=True), setup, REQUEST)
    assert loaded == [{"text_encoder"}, {"transformer"}, {"autoencoder"}]


def test_what_does_not_fit_is_refused_before_anything_is_loaded(
    setup: Setup, resident: MemoryPlan, tmp_path: Path
) -> None:
    folder = shutil.copytree(setup.folders["transformer"], tmp_path / "model")
    shutil.rmtree(folder / "text_encoder")
    write_text_encoder(folder / "text_encoder", width=24)
    misfit = replace(setup, folders=find_pipeline(folder))
    stages: list[str] = []
    with pytest.raises(WeightsError, match="the text encoder's width is 24"):
        carry_out(replace(resident, staged=True), misfit, REQUEST, on_stage=stages.append)
    assert stages == []


def test_prompts_are_encoded_alone_as_beside_the_transformer(tiny_folder: Path, tmp_path: Path) -> None:
    """A null caption says how long captions are, whether the transformer is loaded or not."""
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    save_file({"null_caption": torch.zeros(20, 16)}, folder / "transformer" / "null_caption.safetensors")
    whole = TextToImage.from_pretrained(folder, device="cpu")
    alone = TextToImage.from_pretrained(folder, device="cpu", transformer=None, autoencoder=None)
    assert alone.text_encoder.caption_length == whole.text_encoder.caption_length == 20


def test_a_sampler_for_other_weights_is_refused_while_planning(setup: Setup) -> None:
    distilled = replace(REQUEST, sampler="lcm", guidance_scale=1.0, num_steps=4)
    with pytest.raises(InvalidInput, match="lcm"):
        plan_generation(setup, distilled, 64 * GIB)


def test_a_stop_leaves_out_the_pictures_that_have_not_begun(setup: Setup, resident: MemoryPlan) -> None:
    apart = replace(resident, staged=True, pictures_at_once=1)
    counts: list[int] = []

    def stop_in_the_second(step: Step) -> bool:
        counts.append(step.done)
        return step.done < 3

    result = carry_out(apart, setup, REQUEST, on_step=stop_in_the_second)
    assert counts == [1, 2, 3]
    assert len(result.images) == len(result.latents) == 2
    assert result.seeds == [5, 6]


def test_blocks_that_visit_a_device_have_its_dtype(
    setup: Setup, resident: MemoryPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In host memory, where they begin, "auto" would be another one."""
    asked: dict[str, str] = {}
    monkeypatch.setattr(
        TextToImage,
        "from_pretrained",
        lambda *_, **options: asked.update(device=options["device"], dtype=options["dtype"]),
    )
    monkeypatch.setattr(run, "resolve_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    visiting = replace(resident, staged=True, blocks_visit=True)
    run._load(replace(setup, device="cuda"), visiting, text_encoder=None, autoencoder=None)
    assert asked == {"device": "cpu", "dtype": "bfloat16"}


def test_a_plan_is_told_before_it_is_carried_out(tiny_folder: Path) -> None:
    plans: list[MemoryPlan] = []
    result = generate_within(
        tiny_folder, replace(REQUEST, num_images=1), "8GiB", on_plan=plans.append, device="cpu"
    )
    assert [plan.limit_bytes for plan in plans] == [8 * GIB]
    assert len(result.images) == 2


def test_a_limit_that_cannot_be_met_says_what_would_help(setup: Setup) -> None:
    with pytest.raises(
        InvalidInput, match=r"is too little, the least is \d+ MiB, for stage .*--dtype bfloat16"
    ):
        plan_generation(setup, REQUEST, 2**20)


def test_needs_grow_with_the_picture_and_shrink_with_the_dtype(setup: Setup) -> None:
    def peaks(request: Request, **options: Any) -> list[int]:
        plan = plan_generation(replace(setup, **options), request, 64 * GIB)
        return [stage.num_bytes - plan.process_bytes for stage in plan.stages]

    small, large = (peaks(replace(REQUEST, height=side, width=side, num_images=1)) for side in (256, 512))
    assert small[0] == large[0]
    assert small[1] < large[1]
    assert small[2] < large[2]
    narrow = peaks(replace(REQUEST, height=512, width=512, num_images=1), dtype="bfloat16")
    assert narrow[2] < large[2]
    unguided = peaks(replace(REQUEST, height=512, width=512, num_images=1, guidance_scale=1.0))
    assert unguided[1] < large[1]


def test_every_prompt_counts_in_the_text_stage_and_its_embedding_in_the_next(setup: Setup) -> None:
    def needed(*prompts: str) -> tuple[int, int]:
        plan = plan_generation(setup, replace(REQUEST, prompts=prompts, num_images=1), 64 * GIB)
        text, denoise, _ = plan.stages
        return text.num_bytes - plan.process_bytes, denoise.num_bytes - plan.process_bytes

    one, again = needed("a red house"), needed("a red house", "a red house")
    two = needed("a red house", "a small cactus with a happy face")
    assert one[0] < again[0] < two[0]
    assert one[1] < again[1]


@pytest.mark.parametrize("profile", ["diffusers", "official"])
def test_a_plan_knows_the_prompts_that_are_on_disk(
    profile: str, setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = replace(setup, profile=profile, prompt_cache=tmp_path / "cache")
    request = replace(REQUEST, num_images=1)
    before = plan_generation(cached, request, 64 * GIB)
    assert before.stages[0].how != "from the prompt cache"
    assert not cached.prompt_cache.exists()  # type: ignore[union-attr]  # a plan alone writes nothing
    made = carry_out(before, cached, request)

    monkeypatch.setattr(TextEncoder, "from_pretrained", None)
    known = plan_generation(cached, request, 64 * GIB)
    assert known.stages[0].how == "from the prompt cache"
    assert known.stages[0].num_bytes < before.stages[0].num_bytes
    again = carry_out(replace(known, staged=True), cached, request)
    assert relative_error(again.latents, made.latents) <= 1e-5
    for other in (replace(cached, dtype="bfloat16"), replace(cached, text_hold="nf4")):
        assert plan_generation(other, request, 64 * GIB).stages[0].how != "from the prompt cache"
    more = replace(request, prompts=(*request.prompts, "a lake"))
    assert plan_generation(cached, more, 64 * GIB).stages[0].how != "from the prompt cache"
    unguided = replace(request, guidance_scale=1.0)
    assert plan_generation(cached, unguided, 64 * GIB).stages[0].how == "from the prompt cache"


def test_the_negative_prompt_must_be_known_too(setup: Setup, tmp_path: Path) -> None:
    cached = replace(setup, prompt_cache=tmp_path)
    request = replace(REQUEST, guidance_scale=1.0, num_images=1)
    carry_out(plan_generation(cached, request, 64 * GIB), cached, request)
    assert plan_generation(cached, request, 64 * GIB).stages[0].how == "from the prompt cache"
    for profile in ("diffusers", "official"):
        guided = replace(request, guidance_scale=3.0)
        plan = plan_generation(replace(cached, profile=profile), guided, 64 * GIB)
        assert plan.stages[0].how != "from the prompt cache"


@pytest.mark.parametrize("staged", [False, True])
def test_the_largest_seeds_are_the_same_whole_and_staged(
    staged: bool, setup: Setup, resident: MemoryPlan
) -> None:
    request = replace(REQUEST, prompts=("a red house",), num_steps=1, seed=MAX_SEED - 1)
    plan = replace(resident, staged=staged, pictures_at_once=1 if staged else 2)
    assert carry_out(plan, setup, request).seeds == [MAX_SEED - 1, MAX_SEED]
    with pytest.raises(InvalidInput, match=f"seed {MAX_SEED} is outside 0 to {MAX_SEED - 1}"):
        replace(request, seed=MAX_SEED)


@pytest.mark.parametrize(("height", "blended"), [(64, False), (1040, True)])
def test_a_result_says_whether_tiles_were_blended(
    height: int, blended: bool, setup: Setup, tiny_folder: Path
) -> None:
    request = Request(("a red house",), height=height, width=32, num_steps=1)
    fast = replace(setup, tiling="fast")
    plan = plan_generation(fast, request, 64 * GIB)
    assert plan.stages[2].how == ("blended tiles (not exact)" if blended else "whole")
    assert carry_out(plan, fast, request).blended == blended
    model = TextToImage.from_pretrained(tiny_folder, device="cpu")
    model.autoencoder.tiling = Tiling("fast")
    assert model.generate(request).blended == blended
    assert not carry_out(replace(plan, tiling=Tiling("exact")), fast, request).blended


def test_compression_beyond_the_model_is_refused_while_planning(setup: Setup) -> None:
    request = Request(("a red house",), kv_compression=(2, 2))
    assert plan_generation(setup, request, 64 * GIB).peak_bytes
    from pixart_sigma.pipeline.kv_compression import KVCompressionRequest

    beyond = replace(request, kv_compression=KVCompressionRequest((2, 2), "average", (9,)))
    with pytest.raises(InvalidInput, match=r"names blocks \[9\]; the model has 0 to 3"):
        plan_generation(setup, beyond, 64 * GIB)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory: you tried to al"
        ),
        RuntimeError(
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes. Error code 12"
        ),
        RuntimeError("unable to mmap 9 bytes from file <model.safetensors>: Cannot allocate memory (12)"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    ],
)
def test_memory_that_runs_out_is_one_line_with_the_stage(
    error: BaseException, setup: Setup, resident: MemoryPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(TextToImage, "denoise", fail)
    with pytest.raises(OutOfMemory) as raised:
        carry_out(resident, setup, REQUEST)
    assert str(raised.value).startswith(
        "the memory did not suffice in stage denoise; give a lower --memory-limit"
    )
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("cause", "raised"),
    [
        (MemoryError(), OutOfMemory),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), OutOfMemory),
        (OSError(errno.ENOSPC, "No space left on device"), InvalidInput),
        (OSError(errno.EACCES, "Permission denied"), WeightsError),
    ],
)
def test_a_file_is_not_called_broken_for_want_of_memory(cause: Exception, raised: type[Exception]) -> None:
    error = WeightsError("the files cannot be loaded; fetch or export them again")
    error.__cause__ = cause
    with (
        pytest.raises(raised, match="fetch" if raised is WeightsError else "in stage text"),
        explained("text"),
    ):
        raise error


def test_a_full_disk_is_one_line_with_the_stage() -> None:
    with pytest.raises(InvalidInput, match="the disk was full in stage decode"), explained("decode"):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("error", [RuntimeError("shapes do not fit"), OSError(errno.EACCES, "no")])
def test_other_mistakes_pass(error: Exception) -> None:
    with pytest.raises(type(error)), explained("text"):
        raise error


def test_auto_is_what_is_free(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "free_bytes", lambda _: 40 * GIB)
    assert plan_generation(setup, REQUEST).limit_bytes == 40 * GIB


@pytest.mark.slow
@pytest.mark.parametrize(("side", "limit"), [(256, "2GB"), (1024, "2GB"), (1024, "800MB")])
def test_the_predicted_peak_is_what_is_measured(side: int, limit: str) -> None:
    """The whole process's anonymous memory, within 15 %, with the pocket model."""
    arguments = {
        "model": "pocket",
        "prompt": "a red house by a lake",
        "limit": limit,
        "options": {"dtype": "float32", "device": "cpu"},
        "request": {"height": side, "width": side, "num_steps": 2},
    }
    program = Path(__file__).with_name("measured_peak.py")
    finished = subprocess.run(
        [sys.executable, str(program), json.dumps(arguments)], capture_output=True, text=True, check=True
    )
    told = json.loads(finished.stdout)
    measured = max(told["measured"].values())
    assert max(told["predicted"].values()) == pytest.approx(measured, rel=0.15)


def test_a_text_encoder_that_would_not_load_is_refused_by_the_plan(setup: Setup, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    shutil.copytree(setup.folders["transformer"], folder)
    path = folder / "text_encoder" / "config.json"
    content = json.loads(path.read_text())
    del content["d_kv"]
    path.write_text(json.dumps(content))
    with pytest.raises(WeightsError, match=r"config\.json .*it has no d_kv"):
        plan_generation(Setup(find_pipeline(folder), device="cpu"), REQUEST)
