"""The drawn world as a source: scene by scene of consecutive seeds, as PNG, with all its captions.

A scene's key is "scene-<seed>".
"""

from __future__ import annotations

import io
from collections.abc import Container, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixart_sigma.data.drawn import SceneRecord, draw_scenes, world_fingerprint
from pixart_sigma.data.record import Caption
from pixart_sigma.data.sources.origin import Candidate, Origin


def drawn_world(first_seed: int, num_scenes: int, height: int, width: int) -> Origin:
    """The scenes of `num_scenes` seeds from `first_seed` on, drawn at (height, width) by one process per core."""

    def candidates(known: Container[str]) -> Iterator[Candidate]:
        # Rows are appended in the order of the seeds, so that what is known is the beginning.
        drawn = 0
        while drawn < num_scenes and _key(first_seed + drawn) in known:
            drawn += 1
        for _, images, scenes in draw_scenes(first_seed + drawn, num_scenes - drawn, height, width):
            for image, scene in zip(images, scenes, strict=True):
                yield Candidate(_key(scene.seed), partial(_png, image), partial(_captions, scene))

    fingerprint = {
        "kind": "drawn",
        "first_seed": str(first_seed),
        "num_scenes": str(num_scenes),
        "size": f"{width}x{height}",
        "world": world_fingerprint(first_seed),
    }
    return Origin(fingerprint, num_scenes, candidates)


def _key(seed: int) -> str:
    return f"scene-{seed}"


def _png(image: NDArray[np.uint8]) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, "PNG")
    return encoded.getvalue()


def _captions(scene: SceneRecord) -> list[Caption]:
    return [Caption(getattr(scene, source), source) for source in ("short", "dense", "hallucinated")]
