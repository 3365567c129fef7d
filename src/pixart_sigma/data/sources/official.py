"""The layout of the official PixArt code: `InternImgs/` beside `InternData/data_info.json`.

The list's items have `path` in `InternImgs/`, and the captions `prompt` and `sharegpt4v`, of which either may lack or
be empty; they are the captions' sources. Its sizes are not used, the pictures' are.
Source: PixArt-alpha/PixArt-sigma, asset/docs/convert_image2json.md and diffusion/data/datasets.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pixart_sigma.data.record import Caption
from pixart_sigma.data.sources.origin import Candidate, Origin, files_fingerprint, read_inside
from pixart_sigma.errors import InvalidInput

_CAPTIONS = ("prompt", "sharegpt4v")


def official_layout(root: Path) -> Origin:
    """The pictures of `root/InternData/data_info.json`. Raises InvalidInput if that is not such a list."""
    path, images = root / "InternData" / "data_info.json", root / "InternImgs"
    if not path.is_file() or not images.is_dir():
        raise InvalidInput(
            f"{root} has no InternData/data_info.json with InternImgs/ beside it; name the folder that holds both"
        )
    try:
        items = json.loads(path.read_text("utf-8-sig"))
    except ValueError as error:
        raise InvalidInput(f"{path} is not JSON in UTF-8 ({error}); write it again") from error
    if not isinstance(items, list):
        raise InvalidInput(f"{path} is not a list of pictures; write it again")
    for number, item in enumerate(items):
        if not isinstance(item, dict) or not isinstance(item.get("path"), str):
            raise InvalidInput(f"{path}: picture {number} has no path; name its file in InternImgs/")

    def candidates(known: Container[str]) -> Iterator[Candidate]:
        for item in items:
            yield Candidate(
                item["path"], partial(read_inside, images, item["path"]), partial(_captions, item)
            )

    names = [str(path.relative_to(root)), *(f"{images.name}/{item['path']}" for item in items)]
    return Origin(files_fingerprint("official", root, names), len(items), candidates)


def _captions(item: dict[str, Any]) -> list[Caption]:
    return [Caption(item[source], source) for source in _CAPTIONS if isinstance(item.get(source), str)]
