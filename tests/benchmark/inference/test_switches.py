"""Each optimisation switched off alone: the outputs stay, and the work that it saves is done."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pixart_sigma import products, tiled_attention
from pixart_sigma.allocator import keep_freed_memory
from pixart_sigma.benchmark.inference import ours, switches, worker
from pixart_sigma.benchmark.inference.gate import compare
from pixart_sigma.benchmark.inference.scenarios import TINY
from pixart_sigma.benchmark.inference.stopwatch import Stopwatch
from pixart_sigma.benchmark.inference.switches import (
    CAPTIONS_ONCE,
    CHANNELS_LAST,
    KEPT_MEMORY,
    ONEDNN,
    REAL_TOKENS,
    SWITCHES,
    TILES,
    TIMESTEPS_ONCE,
    UPSAMPLING,
)
from pixart_sigma.benchmark.inference.tasks import OURS, THEIRS, Setting, Side
from pixart_sigma.benchmark.inference.work import Job, Outputs
from pixart_sigma.encoders.autoencoder import Autoencoder
from pixart_sigma.encoders.text import TextEncoder
from pixart_sigma.model import PixArtTransformer
from pixart_sigma.pipeline.text_to_image import TextToImage
from pixart_sigma.weights.transformer import load_transformer

CPU = torch.device("cpu")
STEPS = 3
Folder = Callable[[str], Path]


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Those of the last pipeline that was loaded, by name."""
    found: dict[str, Any] = {}
    load = TextToImage.from_pretrained

    def remember(*arguments: Any, **options: Any) -> TextToImage:
        model = load(*arguments, **options)
        found.update(transformer=model.transformer, autoencoder=model.autoencoder, text=model.text_encoder)
        return model

    monkeypatch.setattr(TextToImage, "from_pretrained", remember)
    return found


def picture(folder: Path, *off: str, batch: int = 1) -> Callable[[], Outputs]:
    job = Job(replace(TINY["pipeline"][0], batch=batch), folder, torch.float32, CPU, STEPS, frozenset(off))
    return ours.BUILDERS["picture"](job, Stopwatch(CPU))


def computed(compute: Callable[[], Outputs]) -> Outputs:
    with torch.no_grad():
        return {name: tensor.clone() for name, tensor in compute().items()}


def rows_through(module: torch.nn.Module) -> list[int]:
    """How many rows each call of a linear layer has, from now on."""
    rows: list[int] = []
    module.register_forward_pre_hook(lambda module, given: rows.append(given[0].flatten(0, -2).shape[0]))
    return rows


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("off", [*((name,) for name in SWITCHES), tuple(SWITCHES)])
def test_pictures_stay_the_same_twice(off: tuple[str, ...], batch: int, tiny_weights: Folder) -> None:
    folder = tiny_weights("float32")
    whole, compute = computed(picture(folder, batch=batch)), picture(folder, *off, batch=batch)
    for _ in range(2):
        assert compare(computed(compute), whole, torch.float32).failure is None


@pytest.mark.parametrize(
    ("off", "rows"),
    [((), [40, 1]), ((CAPTIONS_ONCE,), [40, 1] + (STEPS - 1) * [1, 40]), ((REAL_TOKENS,), [300, 300])],
)
def test_captions_are_projected_as_often_and_as_long_as_they_should(
    off: tuple[str, ...], rows: list[int], tiny_weights: Folder, parts: dict[str, Any]
) -> None:
    compute = picture(tiny_weights("float32"), *off)
    projected = rows_through(parts["transformer"].caption_projection.linear_1)
    keys = rows_through(parts["transformer"].transformer_blocks[1].attn2.to_k)
    for _ in range(2):
        computed(compute)
    assert projected == keys == 2 * rows


@pytest.mark.parametrize(("off", "rows"), [((), [STEPS]), ((TIMESTEPS_ONCE,), STEPS * [1])])
def test_timesteps_are_embedded_as_often_as_they_should(
    off: tuple[str, ...], rows: list[int], tiny_weights: Folder, parts: dict[str, Any]
) -> None:
    compute = picture(tiny_weights("float32"), *off)
    embedded = rows_through(parts["transformer"].adaln_single.linear)
    computed(compute)
    assert embedded == rows


def test_prompts_are_padded_for_the_text_encoder(tiny_weights: Folder, parts: dict[str, Any]) -> None:
    for off, passes in (((), [41]), ((REAL_TOKENS,), [300, 300])):
        compute = picture(tiny_weights("float32"), *off)
        encoder: TextEncoder = parts["text"]
        seen: list[int] = []
        encoder.model.shared.register_forward_pre_hook(
            lambda module, given, seen=seen: seen.append(given[0].numel())
        )
        computed(compute)
        assert seen == passes


def test_the_autoencoder_decodes_in_the_default_format(tiny_weights: Folder, parts: dict[str, Any]) -> None:
    compute = picture(tiny_weights("float32"), CHANNELS_LAST)
    autoencoder: Autoencoder = parts["autoencoder"]
    seen: list[bool] = []
    convolutions = [each for each in autoencoder.model.decoder.modules() if isinstance(each, torch.nn.Conv2d)]
    for each in convolutions:
        each.register_forward_pre_hook(
            lambda module, given: seen.append(given[0].is_contiguous() and module.weight.is_contiguous())
        )
    computed(compute)
    assert seen
    assert all(seen)


@pytest.mark.parametrize(
    ("off", "products"), [((), 16), ((UPSAMPLING,), 36), ((CHANNELS_LAST, UPSAMPLING), 36)]
)
def test_an_enlarged_picture_is_convolved_where_every_place_is_repeated(
    off: tuple[str, ...], products: int, tiny_weights: Folder, parts: dict[str, Any]
) -> None:
    picture(tiny_weights("float32"), *off)
    autoencoder: Autoencoder = parts["autoencoder"]
    for level in list(autoencoder.model.decoder.up_blocks)[:-1]:
        (layer,) = level.upsamplers
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            layer(torch.ones(1, layer.conv.in_channels, 4, 4))
        assert (
            counter.get_total_flops()
            == 2 * products * 4 * 4 * layer.conv.in_channels * layer.conv.out_channels
        )


@pytest.mark.parametrize("off", [(), (CAPTIONS_ONCE,), (REAL_TOKENS, CAPTIONS_ONCE, TIMESTEPS_ONCE)])
def test_a_step_does_what_is_switched_off_and_nothing_else(
    off: tuple[str, ...], tiny_weights: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[PixArtTransformer] = []

    def load(*given: Any) -> PixArtTransformer:
        loaded.append(load_transformer(*given))
        return loaded[-1]

    monkeypatch.setattr(ours, "load_transformer", load)
    folder = tiny_weights("float32")
    job = Job(TINY["transformer"][0], folder, torch.float32, CPU, 1, frozenset(off))
    step = ours.BUILDERS["step"](job, Stopwatch(CPU))
    projected = rows_through(loaded[-1].caption_projection.linear_1)
    embedded = rows_through(loaded[-1].adaln_single.linear)
    first = computed(step)
    assert len(projected) == (CAPTIONS_ONCE in off)
    assert len(embedded) == (TIMESTEPS_ONCE in off)
    whole = computed(
        ours.BUILDERS["forward"](Job(job.scenario, folder, torch.float32, CPU, 1), Stopwatch(CPU))
    )
    assert compare(first, whole, torch.float32).failure is None


@pytest.mark.parametrize("side", [OURS, THEIRS])
@pytest.mark.parametrize("off", [(), (KEPT_MEMORY,), (TILES,), (ONEDNN,)])
def test_a_process_does_what_it_was_not_told_to_leave_out(
    off: tuple[str, ...], side: Side, tmp_path: Path, tiny_weights: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []
    monkeypatch.setattr(switches, keep_freed_memory.__name__, lambda: called.append(KEPT_MEMORY))
    monkeypatch.setattr(tiled_attention, "MULTIPLIES_BF16", True)
    monkeypatch.setattr(products, "IS_FASTER", True)
    setting = Setting("transformer", TINY["transformer"][0], "float32", CPU, 1, "step")
    task = setting.task("a side", side, tiny_weights("float32"), tmp_path / "out.safetensors", off=off)
    worker._build(task.arguments)
    assert bool(called) == (KEPT_MEMORY not in off)
    assert (TILES not in off, ONEDNN not in off) == (tiled_attention.MULTIPLIES_BF16, products.IS_FASTER)
