"""A folder of pictures and what lies beside them: texts, JSON, or lists in Hugging Face's imagefolder layout.

    name.txt         the whole text is a caption, source "text"
    name.json        an object: every string in it is a caption, its source the key
    metadata.jsonl   or metadata.csv, in any subfolder: `file_name` relative to it, every other string is a caption,
                     its source the column

Subfolders are searched; names that begin with a dot are not. A picture's key is its path in the folder.
Source of the layout: https://huggingface.co/docs/datasets/image_dataset
"""

from __future__ import annotations

import csv
import json
from collections.abc import Container, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pixart_sigma.data.record import Caption, NoCaption
from pixart_sigma.data.sources.origin import (
    IMAGE_SUFFIXES,
    Candidate,
    Origin,
    files_fingerprint,
    read_inside,
    wanted_sources,
)
from pixart_sigma.errors import InvalidInput

_LISTS = {"metadata.jsonl", "metadata.csv"}
_SIDE_SUFFIXES = (".txt", ".json")


def image_folder(root: Path, caption: str | None = None, sources: tuple[str, ...] | None = None) -> Origin:
    """The pictures under `root`, with the captions beside them, or all with `caption` (source "text").

    `sources` keeps the captions of these sources only. Raises InvalidInput if there is no such folder, if a list in
    it cannot be read, or for both a caption and sources.
    """
    if not root.is_dir():
        raise InvalidInput(f"image folder {root} does not exist; name a folder of pictures")
    if caption is not None and sources is not None:
        raise InvalidInput("one caption for all leaves no choice of caption sources; give one of the two")
    files = sorted(_visible(root))
    if caption is not None:
        listed: dict[str, list[Caption]] = {}
        side_files: set[Path] = set()
        settings = {"caption": caption}
    else:
        lists = [path for path in files if path.name in _LISTS]
        listed = dict(entry for path in lists for entry in _listed(root, path))
        images = {path.with_suffix("") for path in files if _is_image(path)}
        beside = (path for path in files if path.suffix in _SIDE_SUFFIXES)
        side_files = {path for path in beside if path.with_suffix("") in images} | set(lists)
        settings = wanted_sources(sources)
    keys = sorted({path.relative_to(root).as_posix() for path in files if _is_image(path)} | set(listed))

    def captions(key: str) -> list[Caption]:
        if caption is not None:
            return [Caption(caption, "text")]
        found = [*listed.get(key, []), *_beside(root / key, side_files)]
        kept = [each for each in found if sources is None or each.source in sources]
        if not kept:
            raise NoCaption(_no_caption(key, found))
        return kept

    def candidates(known: Container[str]) -> Iterator[Candidate]:
        for key in keys:
            yield Candidate(key, partial(read_inside, root, key), partial(captions, key))

    read = [path for path in files if _is_image(path) or path in side_files]
    names = [path.relative_to(root).as_posix() for path in read]
    fingerprint = files_fingerprint("folder", root, names, **settings)
    return Origin(fingerprint, len(keys), candidates)


def _no_caption(key: str, found: list[Caption]) -> str:
    if found:
        return f"no caption: the captions there are of source {', '.join(sorted({each.source for each in found}))}"
    stem = Path(key).with_suffix("").as_posix()
    return f"no caption: neither {stem}.txt nor {stem}.json, and in no metadata.jsonl or metadata.csv"


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def _visible(folder: Path) -> Iterator[Path]:
    """The files under a folder, but none whose name or folder's name begins with a dot."""
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _visible(path)
        else:
            yield path


def _beside(image: Path, side_files: set[Path]) -> Iterator[Caption]:
    path = image.with_suffix(".json")
    if path in side_files:
        try:
            content = json.loads(path.read_text("utf-8-sig"))
        except ValueError as error:
            raise NoCaption(f"{path} is not JSON in UTF-8 ({error})") from error
        if not isinstance(content, dict):
            raise NoCaption(f"{path} is not an object of captions")
        yield from _strings(content)
    path = image.with_suffix(".txt")
    if path in side_files:
        try:
            yield Caption(path.read_text("utf-8-sig"), "text")
        except ValueError as error:
            raise NoCaption(f"{path} is not text in UTF-8") from error


def _listed(root: Path, path: Path) -> Iterator[tuple[str, list[Caption]]]:
    """(key, captions) of each row of a metadata.jsonl or metadata.csv."""
    folder = path.parent.relative_to(root)
    for number, row in _rows(path):
        name = row.get("file_name") if isinstance(row, dict) else None
        if not isinstance(name, str) or not name:
            raise InvalidInput(f"{path} line {number} has no file_name; name the picture that it describes")
        others = {column: value for column, value in row.items() if column != "file_name"}
        yield (folder / name).as_posix(), list(_strings(others))


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            if path.suffix == ".csv":
                yield from enumerate(csv.DictReader(lines), 2)
                return
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, json.loads(line)
    except (ValueError, csv.Error) as error:
        raise InvalidInput(f"{path} cannot be read ({error}); mend it or take it away") from error


def _strings(content: dict[str, Any]) -> Iterator[Caption]:
    return (Caption(value, source) for source, value in content.items() if isinstance(value, str))
