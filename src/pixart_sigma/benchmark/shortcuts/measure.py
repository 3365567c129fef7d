"""Suite shortcuts: seconds beside the exact picture's, and what the pictures are worth beside the exact ones.

    output/exact/images/ID.png           the exact pictures, kept from call to call
    output/NAME/images/ID.png            a scenario's, of the same prompts and seeds
    output/reference-….safetensors       the drawn reference, kept too

All rows run in one process, since they differ in what is asked of one model; only int8 has a transformer of its own.
Times are of one picture from its prompt, in turns with the exact one, and never of those that are kept. Knows nothing
of tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pixart_sigma.benchmark.outcome import Say
from pixart_sigma.benchmark.serving import seconds_now
from pixart_sigma.benchmark.shortcuts.quality import Jury, Quality, change, find_jury, judged, likeness
from pixart_sigma.benchmark.shortcuts.scenarios import EXACT, Scenario
from pixart_sigma.benchmark.table import Row
from pixart_sigma.errors import PixArtSigmaError
from pixart_sigma.evaluation.pictures import Making, make_pictures, missing, pipeline_digest
from pixart_sigma.evaluation.reference_set import NUM_DRAWN
from pixart_sigma.evaluation.request import EvaluationRequest
from pixart_sigma.pipeline.request import Request
from pixart_sigma.pipeline.text_to_image import TextToImage

_FIGURES = (
    "failed",
    "exact_seconds",
    "seconds",
    "equal",
    "psnr",
    "ssim",
    "adherence",
    "adherence_change",
    "fid",
)


@dataclass(frozen=True)
class Setting:
    """What all rows have in common: what is evaluated, one exact picture as it is asked for (with the first prompt, its
    seed, and the size in pixels), and the exact pipeline; jury: None if the prompts have no scenes.
    """

    request: EvaluationRequest
    asked: Request
    size: tuple[int, int]
    device: torch.device
    pipeline: TextToImage
    jury: Jury | None

    def folder(self, scenario: Scenario) -> Path:
        """Where its pictures are."""
        return self.request.output / scenario.name


def measure_shortcuts(
    request: EvaluationRequest,
    asked: Request,
    scenarios: Sequence[Scenario],
    device: torch.device,
    rounds: int,
    say: Say,
    num_drawn: int = NUM_DRAWN,
) -> Iterator[Row]:
    """The exact row, without times, and one for each scenario; `failed` says why one has no figures.

    asked: of the first prompt, with a size. Raises InvalidInput or WeightsError for what does not fit the model itself.
    """
    assert asked.height is not None
    assert asked.width is not None
    size = asked.height, asked.width
    jury = None
    if request.has_scenes:
        say(f"{num_drawn} drawn scenes for FID, unless they are there")
        jury = find_jury(request.features, request.output, size, device, num_drawn)
    pipeline = TextToImage.from_pretrained(request.folders, device=str(device))
    for scenario in scenarios:  # before half an hour's work: schedules are for a number of blocks
        num_blocks = pipeline.transformer.config.num_layers
        scenario.shortcuts.plan(asked.num_steps, num_blocks, asked.guidance_scale > 1)
    setting = Setting(request, asked, size, device, pipeline, jury)
    _make(setting, EXACT, pipeline, say)
    exact, exact_right = _judged(setting, EXACT, say)
    yield _row(EXACT, exact)
    for scenario in scenarios:
        try:
            times = _timed(setting, scenario, rounds, say)
            quality, right = _judged(setting, scenario, say)
        except (PixArtSigmaError, RuntimeError) as error:  # torch's own, if memory runs out
            say(f"{scenario.name}: failed: {error}")
            yield _row(scenario, {"failed": str(error)})
            continue
        like = likeness(setting.folder(scenario), setting.folder(EXACT), request.prompts)
        changed = change(right, exact_right) if right else {}
        yield _row(scenario, {**times, **like, **quality, **changed})


def take_turns(runs: Sequence[Callable[[], object]], rounds: int, device: torch.device) -> list[list[float]]:
    """Seconds of each by round, there and back (A B B A), after one of each that does not count."""
    for run in runs:
        run()
    seconds: list[list[float]] = [[] for _ in runs]
    both = list(zip(runs, seconds, strict=True))
    for number in range(rounds):
        for run, taken in both if number % 2 == 0 else reversed(both):
            started = seconds_now(device)
            run()
            taken.append(seconds_now(device) - started)
    return seconds


def _timed(setting: Setting, scenario: Scenario, rounds: int, say: Say) -> dict[str, list[float]]:
    """Seconds of a picture beside those of the exact one; the scenario's pictures are made too."""
    pipeline = _in_a_way(setting, scenario)
    asked = setting.asked
    shortened = replace(asked, kv_compression=scenario.kv_compression, shortcuts=scenario.shortcuts)
    say(f"{scenario.name}: {rounds} rounds beside the exact picture")
    exact_seconds, seconds = take_turns(
        [lambda: setting.pipeline.generate(asked), lambda: pipeline.generate(shortened)],
        rounds,
        setting.device,
    )
    _make(setting, scenario, pipeline, say)
    return {"exact_seconds": exact_seconds, "seconds": seconds}


def _in_a_way(setting: Setting, scenario: Scenario) -> TextToImage:
    """The exact pipeline, of which a request leaves something out, or one with a transformer in 8 bits."""
    if not scenario.int8:
        return setting.pipeline
    return TextToImage.from_pretrained(
        setting.request.folders,
        device=str(setting.device),
        text_encoder=setting.pipeline.text_encoder,
        autoencoder=setting.pipeline.autoencoder,
        int8=True,
    )


def _make(setting: Setting, scenario: Scenario, pipeline: TextToImage, say: Say) -> None:
    """The pictures that are missing."""
    making = Making(
        setting.request.folders.name,
        pipeline_digest(pipeline),
        *setting.size,
        setting.asked.num_steps,
        setting.asked.guidance_scale,
        setting.asked.sampler,
        scenario.kv_compression,
        scenario.shortcuts,
        scenario.int8,
    )
    prompts, folder = setting.request.prompts, setting.folder(scenario)
    wanted = missing(folder, prompts, making)
    say(f"{scenario.name}: {len(wanted)} of {len(prompts)} pictures to make")
    make_pictures(pipeline, folder, wanted, making, lambda done, total: None)


def _judged(setting: Setting, scenario: Scenario, say: Say) -> tuple[Quality, list[float]]:
    """Nothing without a jury."""
    if setting.jury is None:
        return {}, []
    say(f"{scenario.name}: judging")
    return judged(setting.folder(scenario), setting.request.prompts, setting.jury)


def _row(scenario: Scenario, figures: dict[str, Any]) -> Row:
    return {
        "scenario": scenario.name,
        "options": scenario.options,
        **{name: figures.get(name) for name in _FIGURES},
    }
