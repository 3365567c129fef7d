"""Evaluation: a model's pictures of a list of prompts, seen by judges, as figures, a table and a page.

    output/images/ID.png             the model's pictures, kept from call to call
    output/reference-….safetensors   a drawn reference, kept too
    output/metrics.json, table.md, report.html

Beside the model's own pictures stand three others: the prompts' scenes as they are drawn ("truth"), these as the
model's autoencoder gives them back ("ceiling"), and the model's own beside shuffled prompts ("floor").

Knows nothing of commands.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import pixart_sigma
from pixart_sigma.data.images import to_pixels
from pixart_sigma.encoders.autoencoder import Autoencoder
from pixart_sigma.errors import MissingDependency
from pixart_sigma.evaluation.features import FeatureExtractor, ImageTextExtractor, extractor
from pixart_sigma.evaluation.figures import SECONDS, Figure, Observations, figures, floor_figures, verdicts
from pixart_sigma.evaluation.judges.checker import Checker, Reading, load_checker, read
from pixart_sigma.evaluation.metrics.ocr import Reader, tesseract_reader
from pixart_sigma.evaluation.metrics.reference import Reference, save_reference
from pixart_sigma.evaluation.patches import patches
from pixart_sigma.evaluation.pictures import (
    Making,
    make_pictures,
    missing,
    open_pictures,
    picture_file,
    pipeline_digest,
    seconds_per_picture,
)
from pixart_sigma.evaluation.prompts import Prompt, prompts_digest
from pixart_sigma.evaluation.reference_set import NUM_DRAWN, drawn_reference, open_reference
from pixart_sigma.evaluation.report import write_page, write_table
from pixart_sigma.evaluation.request import EvaluationRequest
from pixart_sigma.pipeline.device import resolve_device
from pixart_sigma.pipeline.images import to_uint8
from pixart_sigma.pipeline.request import make_request
from pixart_sigma.pipeline.text_to_image import TextToImage
from pixart_sigma.weights.atomic import written_whole
from pixart_sigma.weights.folder import base_resolution
from pixart_sigma.world import render

METRICS_FILE = "metrics.json"
_AT_ONCE = 16

Images = Iterator[NDArray[np.uint8]]
"""Pictures (H, W, 3), one a prompt."""
Progress = Callable[[str, int, int], None]
"""(what is being done, done, total)."""


@dataclass(frozen=True)
class Judges:
    """Who looks at pictures: the checker only where prompts have scenes, the reader only where they have letters."""

    extractor: FeatureExtractor
    checker: Checker | None
    reader: Reader | None


def evaluate(
    request: EvaluationRequest, progress: Progress, num_drawn: int = NUM_DRAWN, *, model_alone: bool = False
) -> dict[str, Any]:
    """Make the pictures that are missing, measure, write the three files, and return what metrics.json holds.

    A drawn reference has `num_drawn` scenes. With `model_alone` ceiling and truth, the same for every model with the
    same autoencoder, are left out. Raises InvalidInput or WeightsError for what does not fit, before any
    picture is made.
    """
    prompts, output = request.prompts, request.output
    device = resolve_device(request.device)
    judges = _judges(request, device)
    height, width = request.size or (base_resolution(request.folders),) * 2
    reference = _reference(request, judges.extractor, (height, width), num_drawn, progress)

    pipeline = TextToImage.from_pretrained(request.folders, device=request.device)
    asked = make_request(
        pipeline.sampler,
        request.num_steps,
        request.guidance_scale,
        prompts=(prompts[0].text,),
        height=height,
        width=width,
    )
    making = Making(
        request.folders.name,
        pipeline_digest(pipeline),
        height,
        width,
        asked.num_steps,
        asked.guidance_scale,
        asked.sampler,
    )
    make_pictures(
        pipeline, output, missing(output, prompts, making), making, _stage(progress, "making pictures")
    )

    texts = _embed_texts(judges.extractor, prompts)
    sets: dict[str, Images] = {"model": open_pictures(output, prompts)}
    if request.has_scenes and not model_alone:
        sets["ceiling"] = _reconstructed(pipeline.autoencoder, _drawn(prompts, height, width), device)
        sets["truth"] = _drawn(prompts, height, width)
    seen = {
        name: observe(images, prompts, judges, _stage(progress, f"judging: {name}"))
        for name, images in sets.items()
    }
    found = [
        figure
        for name, observations in seen.items()
        for figure in figures(name, prompts, observations, texts, reference)
    ]
    found += floor_figures(prompts, seen["model"], texts)
    found.append(Figure(SECONDS, "", "model", seconds_per_picture(output, prompts), len(prompts)))

    metrics = {
        "version": pixart_sigma.__version__,
        "model": making.model,
        "weights": making.weights,
        "prompts": {"num": len(prompts), "digest": prompts_digest(prompts)},
        "making": {
            "size": f"{width}x{height}",
            "steps": making.num_steps,
            "guidance_scale": making.guidance_scale,
            "sampler": making.sampler,
            "device": str(device),
        },
        "features": judges.extractor.name,
        "reference_pictures": None if reference is None else reference.statistics.num,
        "figures": [asdict(figure) for figure in found],
        "pictures": _of_pictures(output, prompts, seen["model"]),
    }
    write_table(metrics, output)
    write_page(metrics, output)
    # Last, since who finds it takes the evaluation for finished.
    with written_whole(output / METRICS_FILE) as temporary:
        temporary.write_text(json.dumps(metrics, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return metrics


def observe(
    images: Images, prompts: Sequence[Prompt], judges: Judges, report: Callable[[int, int], None]
) -> Observations:
    """What the judges see on the prompts' pictures; of these only some are in memory at a time."""
    features: list[Tensor] = []
    of_patches: list[Tensor] = []
    embeddings: list[Tensor] = []
    readings: list[Reading] = []
    letterings: dict[str, str] = {}
    asked = iter(prompts)
    done = 0
    while some := list(islice(images, _AT_ONCE)):
        batch = np.stack(some)
        features.append(judges.extractor.features(batch))
        if (taken := patches(batch, judges.extractor.side, done)) is not None:
            of_patches.append(judges.extractor.features(taken))
        if isinstance(judges.extractor, ImageTextExtractor):
            embeddings.append(judges.extractor.embed_images(batch))
        if judges.checker is not None:
            readings += read(judges.checker, batch)
        for image, prompt in zip(some, asked, strict=False):
            if judges.reader is not None and prompt.lettering is not None:
                letterings[prompt.id] = judges.reader(image)
        done += len(some)
        report(done, len(prompts))
    return Observations(
        (batch.shape[1], batch.shape[2]),
        torch.cat(features),
        torch.cat(of_patches) if of_patches else None,
        torch.cat(embeddings) if embeddings else None,
        readings,
        letterings,
    )


def _embed_texts(extractor: FeatureExtractor, prompts: Sequence[Prompt]) -> Tensor | None:
    """(N, E), or None if the extractor embeds no texts."""
    if not isinstance(extractor, ImageTextExtractor):
        return None
    texts = [prompt.text for prompt in prompts]
    return torch.cat(
        [extractor.embed_texts(texts[first : first + _AT_ONCE]) for first in range(0, len(texts), _AT_ONCE)]
    )


def _judges(request: EvaluationRequest, device: torch.device) -> Judges:
    reader = None
    if any(prompt.lettering is not None for prompt in request.prompts):
        try:
            reader = tesseract_reader()
        except MissingDependency as error:  # the other figures are worth having
            warnings.warn(f"no figures of lettering: {error}", stacklevel=2)
    return Judges(
        extractor(request.features, device),
        load_checker(device=device) if request.has_scenes else None,
        reader,
    )


def _reference(
    request: EvaluationRequest,
    extractor: FeatureExtractor,
    size: tuple[int, int],
    num_drawn: int,
    progress: Progress,
) -> Reference | None:
    report = _stage(progress, "making the reference")
    if request.reference is not None:
        reference = open_reference(request.reference, extractor, *size, report)
    elif request.has_scenes:
        reference = drawn_reference(request.output, extractor, *size, num_drawn, report)
    else:
        return None
    if request.save_reference is not None:
        save_reference(reference, request.save_reference)
    return reference


def _drawn(prompts: Sequence[Prompt], height: int, width: int) -> Images:
    return (render(prompt.scene, height, width) for prompt in prompts if prompt.scene is not None)


def _reconstructed(autoencoder: Autoencoder, images: Images, device: torch.device) -> Images:
    for image in images:
        with torch.inference_mode():
            yield to_uint8(autoencoder.decode(autoencoder.encode(to_pixels(image[None], device))))[0].numpy()


def _of_pictures(output: Path, prompts: Sequence[Prompt], seen: Observations) -> list[dict[str, Any]]:
    """What is told of each picture of the model: its prompt, and what was read wrong."""
    judged = verdicts(prompts, seen.readings)
    told = []
    for index, prompt in enumerate(prompts):
        about: dict[str, Any] = {
            "id": prompt.id,
            "prompt": prompt.text,
            "group": prompt.group,
            "seed": prompt.seed,
            "file": picture_file(output, prompt).relative_to(output).as_posix(),
        }
        if judged:
            about["wrong"] = [asdict(verdict) for verdict in judged[index] if not verdict.right]
        if prompt.id in seen.letterings:
            about["lettering"] = {
                "asked": prompt.lettering,
                "read": " ".join(seen.letterings[prompt.id].split()),
            }
        told.append(about)
    return told


def _stage(progress: Progress, what: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(what, done, total)
