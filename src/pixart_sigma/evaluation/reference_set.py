"""The real pictures that FID and CMMD compare with: from a reference's file, a folder of pictures, or drawn.

Knows nothing of the model that is evaluated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pixart_sigma.data.drawn import FIRST_VALIDATION_SEED, draw_scenes, world_fingerprint
from pixart_sigma.data.images import CorruptImage, bucket_crop
from pixart_sigma.errors import InvalidInput
from pixart_sigma.evaluation.features import FeatureExtractor, ImageTextExtractor
from pixart_sigma.evaluation.metrics.fid import gaussian_statistics
from pixart_sigma.evaluation.metrics.reference import Reference, load_reference, save_reference
from pixart_sigma.evaluation.patches import patches

NUM_DRAWN = 1000
"""Scenes of a drawn reference."""
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".avif")
_AT_ONCE = 16

Report = Callable[[int, int], None]


def picture_paths(folder: Path) -> list[Path]:
    """The pictures in a folder and those below, by name. Raises InvalidInput for fewer than two."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    if len(paths) < 2:
        raise InvalidInput(
            f"reference folder {folder} has {len(paths)} pictures; a reference needs at least 2 (PNG, JPEG, WebP, AVIF)"
        )
    return paths


def open_reference(
    path: Path, extractor: FeatureExtractor, height: int, width: int, report: Report
) -> Reference:
    """A reference's file, or a folder whose pictures are resized to cover height x width pixels and cropped to it.

    Raises InvalidInput for a file that is no reference or one of another extractor, and for a picture that is corrupt.
    """
    if not path.is_dir():
        return load_reference(path, extractor.name)
    paths = picture_paths(path)

    def batches() -> Iterator[NDArray[np.uint8]]:
        for first in range(0, len(paths), _AT_ONCE):
            yield np.stack([_cropped(each, height, width) for each in paths[first : first + _AT_ONCE]])

    return make_reference(extractor, batches(), len(paths), report)


def drawn_reference(
    folder: Path, extractor: FeatureExtractor, height: int, width: int, num_scenes: int, report: Report
) -> Reference:
    """Drawings of scenes that no training has seen; kept in `folder` under a name that tells what they are."""
    world = f"{num_scenes}-scenes-{world_fingerprint(FIRST_VALIDATION_SEED)}"
    file = folder / f"reference-{world}-{width}x{height}-{extractor.name}.safetensors"
    if file.exists():
        return load_reference(file, extractor.name)
    drawn = draw_scenes(FIRST_VALIDATION_SEED, num_scenes, height, width)
    reference = make_reference(extractor, (images for _, images, _ in drawn), num_scenes, report)
    folder.mkdir(exist_ok=True)
    save_reference(reference, file)
    return reference


def make_reference(
    extractor: FeatureExtractor, batches: Iterable[NDArray[np.uint8]], num: int, report: Report
) -> Reference:
    """Batches (n, H, W, 3) of `num` pictures in all → their reference; `report(done, num)` after each batch."""
    features, embeddings, of_patches = [], [], []
    size = None
    done = 0
    for images in batches:
        features.append(extractor.features(images))
        if (taken := patches(images, extractor.side, done)) is not None:
            of_patches.append(extractor.features(taken))
            size = images.shape[1], images.shape[2]
        if isinstance(extractor, ImageTextExtractor):
            embeddings.append(extractor.embed_images(images))
        done += len(images)
        report(done, num)
    return Reference(
        extractor.name,
        gaussian_statistics(features),
        torch.cat(embeddings) if embeddings else None,
        gaussian_statistics(of_patches) if of_patches else None,
        size,
    )


def _cropped(path: Path, height: int, width: int) -> NDArray[np.uint8]:
    try:
        return bucket_crop(path.read_bytes(), height, width)
    except CorruptImage as error:
        raise InvalidInput(f"reference picture {path} cannot be read ({error}); remove it") from error
