"""What users write, what is refused, and pictures with shortcuts: nothing left out is nothing changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from comparison import relative_error
from pixart_sigma.diffusion.shortcuts.plan import ReuseSchedule
from pixart_sigma.errors import InvalidInput
from pixart_sigma.model.config import KVCompression
from pixart_sigma.model.int8 import int8_layers
from pixart_sigma.model.int8_memory import product_bytes
from pixart_sigma.model.transformer import PixArtTransformer
from pixart_sigma.pipeline.kv_compression import KVCompressionRequest
from pixart_sigma.pipeline.memory.needs import needs_of
from pixart_sigma.pipeline.memory.run import Setup, generate_within, plan_generation
from pixart_sigma.pipeline.placement.offload import offloaded
from pixart_sigma.pipeline.profiles import DIFFUSERS
from pixart_sigma.pipeline.request import Lora, Request
from pixart_sigma.pipeline.shortcuts import NO_SHORTCUTS, Shortcuts, parse_shortcuts, read_schedule
from pixart_sigma.pipeline.text_to_image import TextToImage
from pixart_sigma.weights.folder import find_pipeline
from pixart_sigma.weights.transformer import save_transformer, with_kv_compression
from tiny_lora import write_lora_file
from tiny_pipeline import TRANSFORMER, write_tiny_pipeline

SMALL: dict[str, Any] = {"height": 64, "width": 48, "num_steps": 4, "output": "latents"}
BLOCKS, STEPS = 4, 4
EVERY = ReuseSchedule.every


def write_rows(path: Path, **changes: object) -> Path:
    rows = {
        "self_attention": ["1111", "1000", "0000", "1010"],
        "cross_attention": ["1111", "0000", "1111", "0000"],
        "mlp": ["1111", "0101", "0000", "1111"],
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in (rows | changes).items() if value is not None]
    path.write_text("\n".join(lines), "utf-8")
    return path


def write_ecad(path: Path, schedule: ReuseSchedule) -> Path:
    steps = {
        f"{step:03}": {
            str(block): dict(zip(("attn1", "attn2", "ff"), computed, strict=True))
            for block, computed in enumerate(blocks)
        }
        for step, blocks in enumerate(schedule.computed)
    }
    content = {"num_blocks": schedule.num_blocks, "name": "found", "schedule": steps}
    path.write_text(json.dumps({"cache_schedule": content, "config": {}, "metrics": {}}), "utf-8")
    return path


def test_by_default_nothing_is_left_out() -> None:
    assert parse_shortcuts(None, None, None) == NO_SHORTCUTS == Request(("a house",)).shortcuts
    assert NO_SHORTCUTS.described() == {}


def test_what_users_write(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "mine.toml")
    assert parse_shortcuts("0.2:0.8", 5, "3") == Shortcuts((0.2, 0.8), 5, 3)
    said = parse_shortcuts("0:1", 5, str(file)).described()
    assert said.pop("reuse_blocks").startswith("mine.toml (")
    assert said == {"guidance_interval": "0:1", "freeze_captions_after": "5"}


@pytest.mark.parametrize("text", ["10000", "-2", "0"])
def test_any_whole_number_is_a_number_of_steps_for_the_range_to_judge(text: str) -> None:
    asked = parse_shortcuts(None, None, text)
    assert asked.reuse_blocks == int(text)
    with pytest.raises(InvalidInput, match=rf"^reuse_blocks {text} is outside 2 to 20, for 20 steps; 2 is a"):
        asked.check(20, True)


def test_a_schedule_is_read_by_sublayer_step_and_block(tmp_path: Path) -> None:
    schedule = read_schedule(write_rows(tmp_path / "mine.toml"))
    assert (schedule.num_steps, schedule.num_blocks, schedule.name) == (4, 4, "mine.toml")
    assert schedule.computed[1] == (
        (True, False, False),
        (False, False, True),
        (False, False, False),
        (False, False, True),
    )


def test_what_ecad_writes_is_the_same(tmp_path: Path) -> None:
    schedule = read_schedule(write_rows(tmp_path / "mine.toml"))
    assert read_schedule(write_ecad(tmp_path / "theirs.json", schedule)).digest == schedule.digest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("0.2-0.8", None, None), "guidance interval '0.2-0.8' is not LOW:HIGH"),
        (("0.8:0.2", None, None), "guidance interval 0.8:0.2 is not LOW:HIGH with 0 <= LOW < HIGH <= 1"),
        (("0.2:1.5", None, None), "guidance interval 0.2:1.5 is not"),
        (("0:nan", None, None), "guidance interval 0:nan is not"),
        ((None, None, "often"), "reuse_blocks 'often' is neither a number of steps nor a schedule's file"),
        ((None, None, "1.5"), "reuse_blocks '1.5' is no whole number of steps; write for example 2"),
        ((None, None, "inf"), "reuse_blocks 'inf' is no whole number"),
        ((None, None, "nowhere.toml"), "reuse schedule nowhere.toml cannot be read (No such file"),
        ((None, None, "mine.yaml"), "reuse schedule mine.yaml is neither .toml nor .json"),
    ],
)
def test_what_is_no_shortcut_is_refused(arguments: tuple[Any, Any, Any], message: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        parse_shortcuts(*arguments)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mlp": None}, "has self_attention, cross_attention; it needs self_attention, cross_attention, mlp"),
        ({"name": "fast"}, "it needs self_attention, cross_attention, mlp, and no more"),
        ({"mlp": "1111"}, "has mlp that is no list of texts of 1"),
        ({"mlp": ["1111", "xxxx", "0000", "0000"]}, "has mlp that is no list of texts of 1"),
        ({"mlp": ["1111", "111", "0000", "0000"]}, "has other steps or blocks for some of"),
        ({"mlp": ["1111", "1111", "0000"]}, "has other steps or blocks for some of"),
        ({"mlp": ["1110", "1111", "0000", "1111"]}, "leaves something out at its first step"),
        ({"self_attention": [], "cross_attention": [], "mlp": []}, "is empty"),
    ],
)
def test_a_broken_schedule_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as raised:
        read_schedule(write_rows(tmp_path / "mine.toml", **changes))
    assert message in str(raised.value)
    assert "mine.toml" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1", "is broken"),
        ("[]", "is not what ECAD writes"),
        ('{"cache_schedule": {"schedule": {"001": {}}}}', "is not what ECAD writes"),
        ('{"cache_schedule": {"schedule": {"000": {"0": {"attn1": true}}}}}', "is not what ECAD writes"),
        (
            '{"cache_schedule": {"schedule": {"0": {"0": {"attn1": 1, "attn2": 1, "ff": 1}}}}}',
            "has values that are neither true nor false",
        ),
    ],
)
def test_json_of_anybody_else_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(text)
    with pytest.raises(InvalidInput, match=message):
        read_schedule(tmp_path / "mine.json")


@pytest.mark.parametrize(
    ("shortcuts", "options", "message"),
    [
        (Shortcuts((0.2, 0.8)), {"guidance_scale": 1.0}, "guidance interval 0.2:0.8 needs guidance"),
        (Shortcuts((0.5, 0.51)), {}, "guidance interval 0.5:0.51 holds none of 4 steps; widen it"),
        (Shortcuts((0.5, 1.0), 2), {}, "guidance interval 0.5:1 holds none of the first 2 steps; widen it"),
        (
            Shortcuts(None, 0),
            {},
            "freeze_captions_after 0 is outside 1 to 3, for 4 steps; 2 is a start",
        ),
        (Shortcuts(None, 4), {}, "freeze_captions_after 4 is outside 1 to 3, for 4 steps; 2 is a start"),
        (Shortcuts(None, None, 1), {}, "reuse_blocks 1 is outside 2 to 4, for 4 steps; 2 is a start"),
        (Shortcuts(None, None, 5), {}, "reuse_blocks 5 is outside 2 to 4"),
        (Shortcuts(None, 1), {"num_steps": 1}, "freeze_captions_after 1 leaves nothing out of a single step"),
        (Shortcuts(None, None, 2), {"num_steps": 1}, "reuse_blocks 2 leaves nothing out of a single step"),
        (Shortcuts((0.0, 1.0)), {}, "guidance interval 0:1 leaves out none of 4 steps; narrow it"),
        (Shortcuts((0.1, 0.9)), {}, "guidance interval 0.1:0.9 leaves out none of 4 steps; narrow it"),
        (Shortcuts((0.0, 0.5), 2), {}, "guidance interval 0:0.5 leaves out none of the first 2 steps"),
        (
            Shortcuts(None, None, EVERY(1, 4, 4)),
            {},
            "reuse schedule every 1 computes everything at every step; leave something out in it",
        ),
        (
            Shortcuts(None, None, EVERY(2, 5, 4)),
            {},
            "reuse schedule every 2 is for 5 steps, not 4; sample in as many (--steps 5)",
        ),
    ],
)
def test_a_request_that_a_shortcut_does_not_fit_is_refused(
    shortcuts: Shortcuts, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput) as raised:
        Request(("a house",), **({"num_steps": 4, "shortcuts": shortcuts} | options))
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


@pytest.fixture(scope="module")
def strong_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_pipeline(tmp_path_factory.mktemp("strong") / "tiny")


@pytest.fixture(scope="module")
def model(strong_folder: Path) -> TextToImage:
    loaded = TextToImage.from_pretrained(strong_folder)
    strengthen(loaded.transformer)
    return loaded


def strengthen(transformer: PixArtTransformer) -> None:
    """Captions count for more than random weights let them."""
    for block in transformer.transformer_blocks:
        block.attn2.to_out[0].weight.data *= 20


@contextmanager
def counted(model: TextToImage) -> Iterator[list[int]]:
    """The batch of each evaluation of each linear layer of the blocks' MLPs."""
    batches: list[int] = []
    hooks = [
        block.ff.register_forward_pre_hook(lambda _, inputs: batches.append(len(inputs[0])))
        for block in model.transformer.transformer_blocks
    ]
    yield batches
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize(
    "shortcuts",
    [
        NO_SHORTCUTS,
        Shortcuts((0.0, 1.0)),
        Shortcuts(None, STEPS),
        Shortcuts(None, None, 1),
        Shortcuts((0.0, 1.0), STEPS, EVERY(1, STEPS, BLOCKS)),
    ],
    ids=str,
)
def test_where_nothing_is_left_out_the_picture_is_equal(
    model: TextToImage, shortcuts: Shortcuts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shortcuts, "check", lambda *_: None)  # which refuses what does nothing
    exact = model("a red house", negative_prompt="blurry", num_images=2, **SMALL).latents
    found = model("a red house", negative_prompt="blurry", num_images=2, shortcuts=shortcuts, **SMALL).latents
    assert torch.equal(found, exact)


SHORTCUTS = {
    "interval": (Shortcuts((0.25, 0.75)), [1] * 4 + [2] * 8 + [1] * 4),
    "freeze": (Shortcuts(None, 2), [2] * 8 + [1] * 8),
    "reuse": (Shortcuts(None, None, 2), [2] * 8),
    "all": (Shortcuts((0.25, 1.0), 3, 2), [1] * 4 + [2] * 4 + [2] * 4),
}


@pytest.mark.parametrize("name", SHORTCUTS)
def test_work_is_saved_and_the_picture_is_another(model: TextToImage, name: str) -> None:
    shortcuts, expected = SHORTCUTS[name]
    exact = model("a red house", **SMALL).latents
    with counted(model) as batches:
        found = model("a red house", shortcuts=shortcuts, **SMALL).latents
    assert batches == expected
    assert relative_error(found, exact) > 1e-4
    assert torch.equal(model("a red house", **SMALL).latents, exact)  # nothing is left on the model


@pytest.mark.parametrize("name", SHORTCUTS)
def test_a_picture_depends_on_its_seed_and_not_on_its_batch(model: TextToImage, name: str) -> None:
    shortcuts = SHORTCUTS[name][0]
    together = model(["a red house", "a lake"], seed=3, num_images=2, shortcuts=shortcuts, **SMALL).latents
    alone = model("a lake", seed=6, shortcuts=shortcuts, **SMALL).latents
    assert relative_error(alone[0], together[3]) <= 1e-5


@pytest.mark.parametrize("name", SHORTCUTS)
def test_branches_apart_and_weights_that_visit_make_the_same_picture(model: TextToImage, name: str) -> None:
    request = Request(("a red house",), height=64, width=48, num_steps=STEPS, shortcuts=SHORTCUTS[name][0])
    encoded = model.encode(request.prompts)
    expected = model.denoise(encoded, request)
    assert relative_error(model.denoise(encoded, request, branches_together=False), expected) <= 1e-5
    visited = model.denoise(encoded, request, placed=lambda one: offloaded(one, torch.device("cpu")))
    assert torch.equal(visited, expected)
    assert not any("forward" in vars(block) for block in model.transformer.transformer_blocks)


def test_without_guidance_and_with_compression(model: TextToImage, monkeypatch: pytest.MonkeyPatch) -> None:
    common = SMALL | {"kv_compression": (2, 2), "guidance_scale": 1.0}
    exact = model("a red house", **common).latents
    with monkeypatch.context() as patched:
        patched.setattr(Shortcuts, "check", lambda *_: None)
        assert torch.equal(model("a red house", shortcuts=Shortcuts(None, None, 1), **common).latents, exact)
    with counted(model) as batches:
        model("a red house", shortcuts=Shortcuts(None, 2, 2), **SMALL, guidance_scale=1.0)
    assert batches == [1] * 8


def test_a_schedule_for_another_model_is_refused_before_the_text_encoder_runs(
    model: TextToImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "encode", None)
    with pytest.raises(
        InvalidInput, match="for 4 steps and 28 blocks; this is a sampling of 4 steps with a model of 4"
    ):
        model("a red house", shortcuts=Shortcuts(None, None, EVERY(2, 4, 28)), **SMALL)


def test_within_a_limit_pictures_are_the_same(strong_folder: Path) -> None:
    request = Request(
        ("a red house",), height=64, width=48, num_steps=STEPS, num_images=2, shortcuts=SHORTCUTS["all"][0]
    )
    expected = TextToImage.from_pretrained(strong_folder).generate(request).latents
    assert relative_error(generate_within(strong_folder, request, "8GiB").latents, expected) <= 1e-5


def test_what_is_kept_is_planned_for(strong_folder: Path) -> None:
    def working(request: Request, int8: bool = False) -> int:
        needs = needs_of(
            find_pipeline(strong_folder),
            request,
            DIFFUSERS,
            torch.bfloat16,
            torch.device("cpu"),
            adapted=False,
            process_bytes=0,
            int8=int8,
        )
        return needs.denoise_working(3, True)

    plain = Request(("a red house",), height=64, width=48, num_steps=STEPS, num_images=3)
    reused = replace(plain, shortcuts=Shortcuts(None, None, 2))
    one = 4 * 3 * 24 * 2  # tokens of 64x48 pixels, width, bytes
    assert working(reused) - working(plain) == 3 * 2 * (3 * BLOCKS) * one
    assert working(plain, int8=True) > working(plain)


def test_in_8_bits_a_convolution_of_keys_is_planned_token_by_token(tmp_path: Path) -> None:
    folder = write_tiny_pipeline(tmp_path / "tiny")
    config = replace(TRANSFORMER, kv_compression=KVCompression((2, 2), "conv", tuple(range(BLOCKS))))
    save_transformer(PixArtTransformer(config), folder / "transformer")
    request = Request(("a red house",), height=2048, width=2048)
    working = {}
    for int8 in (False, True):
        needs = needs_of(
            find_pipeline(folder),
            request,
            DIFFUSERS,
            torch.float32,
            torch.device("cpu"),
            adapted=False,
            process_bytes=0,
            int8=int8,
        )
        working[int8] = needs.denoise_working(1, True)
    rows = 2 * 128 * 128
    unit = rows * config.width * 4
    # Attention's peak, 5.25 times the tokens, instead of the MLP's, which works on a quarter of them at once: 4.5.
    assert working[True] - working[False] - product_bytes(config, rows) == pytest.approx(
        0.75 * unit, rel=0.01
    )


def test_int8_in_a_pipeline(strong_folder: Path, tmp_path: Path) -> None:
    """Merged with a LoRA, with compressed keys and values, and with weights that visit."""
    lora = Lora(write_lora_file(tmp_path / "style.safetensors"))
    exact = TextToImage.from_pretrained(strong_folder, loras=[lora])
    small = TextToImage.from_pretrained(strong_folder, loras=[lora], int8=True)
    assert len(int8_layers(small.transformer)) == 10 * BLOCKS
    assert not int8_layers(exact.transformer)
    for options in ({}, {"kv_compression": (2, 2)}):
        expected = exact("a red house", **SMALL, **options).latents
        assert 1e-4 < relative_error(small("a red house", **SMALL, **options).latents, expected) < 0.05
    request = Request(
        ("a red house",), height=64, width=48, num_steps=2, kv_compression=KVCompressionRequest((2, 2))
    )
    encoded = small.encode(request.prompts)
    visited = small.denoise(encoded, request, placed=lambda one: offloaded(one, torch.device("cpu")))
    assert torch.equal(visited, small.denoise(encoded, request))


def test_compression_takes_layers_in_8_bits_along(strong_folder: Path) -> None:
    model = TextToImage.from_pretrained(strong_folder, int8=True).transformer
    compressed = with_kv_compression(model, KVCompression((2, 2), "average", (1,)))
    own, taken = int8_layers(model), int8_layers(compressed)
    assert own.keys() == taken.keys()
    assert all(taken[name] is layer for name, layer in own.items())


def test_int8_for_a_transformer_that_is_shared_is_refused(model: TextToImage, strong_folder: Path) -> None:
    with pytest.raises(InvalidInput, match="int8 is for a transformer that is loaded"):
        TextToImage.from_pretrained(strong_folder, transformer=model.transformer, int8=True)


def test_int8_is_refused_by_the_plan_for_the_device_that_blocks_would_visit(
    strong_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Setup, "torch_device", property(lambda _: torch.device("mps", 0)))
    setup = Setup(find_pipeline(strong_folder), "float32", int8=True)
    with pytest.raises(
        InvalidInput, match="int8 runs on a CPU and on NVIDIA GPUs from Turing on, not on mps:0"
    ):
        plan_generation(setup, Request(("a red house",), height=64, width=48))


def test_int8_is_refused_by_the_plan_for_sizes_that_are_not_aligned(tmp_path: Path) -> None:
    folder = write_tiny_pipeline(tmp_path / "narrow")
    config = replace(TRANSFORMER, attention_head_dim=6)
    save_transformer(PixArtTransformer(config), folder / "transformer")
    with pytest.raises(InvalidInput, match="multiples of 8, and this model's width is 12; leave --int8 out"):
        plan_generation(
            Setup(find_pipeline(folder), int8=True), Request(("a red house",), height=64, width=48)
        )


def test_int8_weights_are_planned_for(strong_folder: Path) -> None:
    request = Request(("a red house",), height=64, width=48, num_steps=STEPS)
    folders = find_pipeline(strong_folder)
    loaded = {}
    for int8 in (False, True):
        needs = needs_of(
            folders,
            request,
            DIFFUSERS,
            torch.float32,
            torch.device("cpu"),
            adapted=False,
            process_bytes=0,
            int8=int8,
        )
        loaded[int8] = needs.transformer
    layers = int8_layers(TextToImage.from_pretrained(strong_folder, int8=True).transformer).values()
    assert loaded[False].loaded == 0
    assert loaded[True].loaded == sum(one.levels.numel() + 4 * one.scale_bits.numel() for one in layers)
    assert loaded[False].mapped - loaded[True].mapped == sum(4 * one.levels.numel() for one in layers)
    assert plan_generation(Setup(folders, int8=True), request).peak_bytes > 0
