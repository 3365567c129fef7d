"""Pools of drawn scenes on disk: pixels in a memory-mapped `.npy`, captions and truth a line each.

    folder/images.npy     (N, H, W, 3) uint8
    folder/scenes.jsonl   seed, captions, truth
    folder/pool.json      written last: a pool that has it is whole

Scene i of a pool is drawn from seed `first_seed + i`. Knows nothing of latents or models.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from pixart_sigma.world import (
    dense_caption,
    hallucinated_caption,
    render,
    sample_scene,
    scene_svg,
    short_caption,
)

# Seeds from here on are never trained on.
FIRST_VALIDATION_SEED = 10**9
_CHUNK = 64
_FINGERPRINT_SCENES = 32
_FINGERPRINT_SIZE = (1024, 1024)  # where the finest drawing is seen

Report = Callable[[int, int], None]


@dataclass(frozen=True)
class SceneRecord:
    """What a pool knows about a scene besides its pixels."""

    seed: int
    short: str
    dense: str
    hallucinated: str
    truth: dict[str, Any]


@dataclass(frozen=True)
class ImagePool:
    """A finished pool: images (N, H, W, 3) uint8 and as many records."""

    images: NDArray[np.uint8]
    records: list[SceneRecord]


def scene_record(seed: int, all_pairs: bool = False) -> SceneRecord:
    """The captions and truth of the scene of `seed`."""
    scene = sample_scene(seed, all_pairs=all_pairs)
    captions = short_caption(scene), dense_caption(scene), hallucinated_caption(scene)
    return SceneRecord(seed, *captions, scene.truth())


def draw_scenes(
    first_seed: int, num_scenes: int, height: int, width: int, all_pairs: bool = False
) -> Iterator[tuple[int, NDArray[np.uint8], list[SceneRecord]]]:
    """Yield (offset, images (n, height, width, 3) uint8, records) in order, drawn by one process per core."""
    jobs = [
        (first_seed + offset, min(_CHUNK, num_scenes - offset), height, width, all_pairs)
        for offset in range(0, num_scenes, _CHUNK)
    ]
    workers = min(len(jobs), os.cpu_count() or 1)
    if workers <= 1:
        for job in jobs:
            yield (job[0] - first_seed, *_draw_chunk(job))
        return
    # Spawned, not forked: a process that has run torch has threads whose locks a fork would copy.
    with multiprocessing.get_context("spawn").Pool(workers) as processes:
        for job, (images, records) in zip(jobs, processes.imap(_draw_chunk, jobs), strict=True):
            yield job[0] - first_seed, images, records


def _draw_chunk(job: tuple[int, int, int, int, bool]) -> tuple[NDArray[np.uint8], list[SceneRecord]]:
    first_seed, num, height, width, all_pairs = job
    seeds = range(first_seed, first_seed + num)
    images = np.stack([render(sample_scene(seed, all_pairs=all_pairs), height, width) for seed in seeds])
    return images, [scene_record(seed, all_pairs) for seed in seeds]


def image_pool(
    folder: Path,
    first_seed: int,
    num_scenes: int,
    height: int,
    width: int,
    report: Report | None = None,
    *,
    all_pairs: bool = False,
) -> ImagePool:
    """Open the pool of pictures in `folder`, drawing it first if it is missing, of other scenes, or another world's.

    With `all_pairs` scenes may show the pairs that no generator is trained on. `report(done, total)` is called after
    each stretch of scenes.
    """
    wanted = {
        "first_seed": first_seed,
        "num_scenes": num_scenes,
        "height": height,
        "width": width,
        "all_pairs": all_pairs,
        "world": world_fingerprint(first_seed),
    }
    file = folder / "images.npy"
    if read_manifest(folder) != wanted:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "pool.json").unlink(missing_ok=True)
        stored = open_memmap(file, mode="w+", dtype=np.uint8, shape=(num_scenes, height, width, 3))
        with (folder / "scenes.jsonl").open("w", encoding="utf-8") as lines:
            for offset, images, records in draw_scenes(first_seed, num_scenes, height, width, all_pairs):
                stored[offset : offset + len(images)] = images
                write_records(lines.write, records)
                if report:
                    report(offset + len(images), num_scenes)
        stored.flush()
        write_manifest(folder, wanted)
    return ImagePool(np.load(file, mmap_mode="r"), read_records(folder))


def world_fingerprint(first_seed: int) -> str:
    """Changes when the drawing or the captions of the first few scenes do, so that no stale pool is reused."""
    digest = hashlib.blake2b(digest_size=8)
    for seed in range(first_seed, first_seed + _FINGERPRINT_SCENES):
        record, drawing = scene_record(seed), scene_svg(sample_scene(seed), *_FINGERPRINT_SIZE)
        digest.update(f"{record.short}{record.dense}{record.hallucinated}{drawing}".encode())
    return digest.hexdigest()


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a finished pool, or None."""
    path = folder / "pool.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else None


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Mark the pool as whole; by rename, so that a killed run leaves no half of it."""
    aside = folder / "pool.json.writing"
    aside.write_text(json.dumps(manifest), "utf-8")
    aside.rename(folder / "pool.json")


def write_records(write: Callable[[str], Any], records: list[SceneRecord]) -> None:
    """One JSON line a record."""
    for record in records:
        write(json.dumps(vars(record), ensure_ascii=False) + "\n")


def read_records(folder: Path) -> list[SceneRecord]:
    """The records of a pool, in order."""
    with (folder / "scenes.jsonl").open(encoding="utf-8") as lines:
        return [SceneRecord(**json.loads(line)) for line in lines]
