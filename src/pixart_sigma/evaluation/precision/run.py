"""Prompts encoded in fewer bits and in full, and the pictures that come of them, from the same noise.

    output/figures.json                     what is printed, and the same of each prompt
    output/sheet.png                        pictures side by side, with their differences amplified
    output/images/001-int8.png              each of them by itself

One stage after the other, so that one model is in memory at a time: each encoder, then the transformer for all, then
the autoencoder for all. Only the text encoder differs.
Knows nothing of commands.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import pixart_sigma
from pixart_sigma.encoders.text_holds import QUANTISATIONS, TextHold
from pixart_sigma.errors import InvalidInput, MissingDependency, WeightsError
from pixart_sigma.evaluation.precision.figures import embedding_figures, picture_figures
from pixart_sigma.evaluation.precision.request import PrecisionRequest
from pixart_sigma.evaluation.precision.sheet import draw_sheet
from pixart_sigma.pipeline.captions import EncodedPrompts
from pixart_sigma.pipeline.device import resolve_device, resolve_dtype
from pixart_sigma.pipeline.metadata import write_png
from pixart_sigma.pipeline.text_to_image import TextToImage
from pixart_sigma.weights.atomic import written_whole

FIGURES_FILE = "figures.json"
SHEET_FILE = "sheet.png"
IMAGES_FOLDER = "images"
MOST_SHOWN = 8
"""Prompts on the sheet: those whose pictures differ most."""

Progress = Callable[[str, int, int], None]
"""(what is being done, done, total)."""


@dataclass(frozen=True)
class Variant:
    """A text encoder to compare: how it is held, and in which dtype it computes."""

    name: str
    held: TextHold
    dtype: str


@dataclass(frozen=True)
class Encoded:
    """What a variant made of each prompt, on the CPU; the bytes of its weights; its peak on a GPU, weights included."""

    held: TextHold
    prompts: list[EncodedPrompts]
    weight_bytes: int
    peak_bytes: int | None

    @property
    def embeddings(self) -> list[Tensor]:
        """(L, C) of each prompt."""
        return [each.embeds[each.mask] for each in self.prompts]


def compare_precision(request: PrecisionRequest, progress: Progress) -> dict[str, Any]:
    """Encode, denoise and decode, measure, write the files, and return what figures.json holds.

    A variant whose package is missing or fails, or that the encoder's shape does not allow, is left out and named.
    """
    device = resolve_device(request.device)
    dtype = str(resolve_dtype(request.dtype, device)).removeprefix("torch.")
    reference, *others = variants(dtype)
    encoded: dict[str, Encoded] = {}
    skipped: dict[str, str] = {}
    for done, variant in enumerate([reference, *others]):
        progress(f"encoding: {variant.name}", done, 1 + len(others))
        try:
            encoded[variant.name] = _encode(request, variant, device)
        except (MissingDependency, InvalidInput, WeightsError) as error:
            if variant is reference:
                raise
            skipped[variant.name] = str(error)
        _release(device)
    pictures: dict[str, list[Image.Image]] = {}
    if not request.embeddings_only:
        latents = _denoise(request, encoded, dtype, progress)
        _release(device)
        pictures = _decode(request, latents, dtype, progress)
    found = _measure(request, dtype, encoded, pictures, skipped)
    _write(request, found, pictures)
    return found


def variants(dtype: str) -> list[Variant]:
    """A dtype's name → the encoder that is exact in it, and those that are not; bfloat16 among them as a yardstick."""
    half = [Variant("bfloat16", "streamed", "bfloat16")] if dtype == "float32" else []
    return [Variant(dtype, "streamed", dtype), *half, *(Variant(held, held, dtype) for held in QUANTISATIONS)]


def _encode(request: PrecisionRequest, variant: Variant, device: torch.device) -> Encoded:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    pipeline = TextToImage.from_pretrained(
        request.folders,
        dtype=variant.dtype,
        device=str(device),
        transformer=None,
        autoencoder=None,
        text_encoder_held=variant.held,
    )
    guided = not request.embeddings_only and request.pictures[0].guidance_scale > 1
    together = pipeline.encode(request.prompts, guided=guided).to("cpu")
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return Encoded(variant.held, _one_by_one(together), pipeline.text_encoder.weight_bytes, peak)


def _one_by_one(encoded: EncodedPrompts) -> list[EncodedPrompts]:
    """The null branch is one for all."""
    return [
        EncodedPrompts(embeds[None], mask[None], encoded.negative_embeds, encoded.negative_mask)
        for embeds, mask in zip(encoded.embeds, encoded.mask, strict=True)
    ]


def _denoise(
    request: PrecisionRequest, encoded: dict[str, Encoded], dtype: str, progress: Progress
) -> dict[str, list[Tensor]]:
    """→ latents (1, C, h, w) of each prompt of each variant, on the CPU."""
    pipeline = TextToImage.from_pretrained(
        request.folders, dtype=dtype, device=request.device, text_encoder=None, autoencoder=None
    )
    total = len(encoded) * len(request.prompts)
    latents: dict[str, list[Tensor]] = {}
    for name, variant in encoded.items():
        latents[name] = []
        for one, asked in zip(variant.prompts, request.pictures, strict=True):
            progress("denoising", sum(map(len, latents.values())), total)
            latents[name].append(pipeline.denoise(one, asked).cpu())
    return latents


def _decode(
    request: PrecisionRequest, latents: dict[str, list[Tensor]], dtype: str, progress: Progress
) -> dict[str, list[Image.Image]]:
    pipeline = TextToImage.from_pretrained(
        request.folders, dtype=dtype, device=request.device, text_encoder=None, transformer=None
    )
    pictures: dict[str, list[Image.Image]] = {}
    for done, (name, of_prompts) in enumerate(latents.items()):
        progress("decoding", done, len(latents))
        pictures[name] = [pipeline.decode(each)[0] for each in of_prompts]
    return pictures


def _measure(
    request: PrecisionRequest,
    dtype: str,
    encoded: dict[str, Encoded],
    pictures: dict[str, list[Image.Image]],
    skipped: dict[str, str],
) -> dict[str, Any]:
    reference = next(iter(encoded))
    wanted = encoded[reference].embeddings
    pixels = {name: [np.asarray(image) for image in images] for name, images in pictures.items()}
    rows = []
    for name, variant in encoded.items():
        row: dict[str, Any] = {
            "name": name,
            "held": variant.held,
            "weight_bytes": variant.weight_bytes,
            "peak_bytes": variant.peak_bytes,
        }
        if name != reference:
            row["embeddings"] = asdict(embedding_figures(variant.embeddings, wanted))
            of_prompts = [
                {"embeddings": asdict(embedding_figures([ours], [theirs]))}
                for ours, theirs in zip(variant.embeddings, wanted, strict=True)
            ]
            if pixels:
                row["pictures"] = asdict(picture_figures(pixels[name], pixels[reference]))
                for figures, ours, theirs in zip(of_prompts, pixels[name], pixels[reference], strict=True):
                    figures["pictures"] = asdict(picture_figures([ours], [theirs]))
            row["prompts"] = of_prompts
        rows.append(row)
    return {
        "model": request.folders.name,
        "version": pixart_sigma.__version__,
        "dtype": dtype,
        "reference": reference,
        "prompts": list(request.prompts),
        "making": _making(request, pictures),
        "rows": rows,
        "skipped": skipped,
    }


def _making(request: PrecisionRequest, pictures: dict[str, list[Image.Image]]) -> dict[str, Any] | None:
    if not pictures:
        return None
    asked = request.pictures[0]
    image = next(iter(pictures.values()))[0]
    return {
        "size": f"{image.width}x{image.height}",
        "steps": asked.num_steps,
        "guidance_scale": asked.guidance_scale,
        "sampler": asked.sampler,
        "seed": asked.seed,
    }


def _write(request: PrecisionRequest, found: dict[str, Any], pictures: dict[str, list[Image.Image]]) -> None:
    output = request.output
    output.mkdir(exist_ok=True)
    if pictures:
        (output / IMAGES_FOLDER).mkdir(exist_ok=True)
        digits = max(3, len(str(len(request.prompts))))
        for name, images in pictures.items():
            for index, (image, prompt) in enumerate(zip(images, request.prompts, strict=True)):
                path = output / IMAGES_FOLDER / f"{index + 1:0{digits}}-{name}.png"
                made = found["making"] | {"seed": request.seed + index, "text_encoder": name}
                write_png(image, path, {"prompt": prompt, "model": found["model"], **made})
        shown = _most_different(found)
        columns = {name: [np.asarray(images[index]) for index in shown] for name, images in pictures.items()}
        sheet = draw_sheet([request.prompts[index] for index in shown], columns)
        with written_whole(output / SHEET_FILE) as temporary:
            sheet.save(temporary, "PNG")
    _write_json(output / FIGURES_FILE, found)


def _most_different(found: dict[str, Any]) -> list[int]:
    """The prompts whose pictures differ most, in the order in which they were given."""
    of_prompts = [row["prompts"] for row in found["rows"] if "prompts" in row]

    def difference(index: int) -> float:
        return max((each[index]["pictures"]["mean_difference"] for each in of_prompts), default=0.0)

    return sorted(sorted(range(len(found["prompts"])), key=difference, reverse=True)[:MOST_SHOWN])


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _release(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
