"""The page on performance: a text with a place for each suite, and the figures in the files beside it.

A place is a line `<!-- figures: SUITE -->`. Knows nothing of what the suites measure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pixart_sigma.benchmark.figures import Figures, read_figures, render
from pixart_sigma.errors import InvalidInput

TEXT = "page.md"
DEVICES = {"cpu": "CPU", "cuda": "GPU"}
_PLACE = re.compile(r"^<!-- figures: (\S+) -->$", re.MULTILINE)


def render_page(folder: Path) -> str:
    """folder/page.md with the figures of folder/*.json in their places.

    Where a suite has no figures of a kind of device, the page says "not measured". Raises InvalidInput for a missing
    text, a file that is not figures, and figures without a place.
    """
    try:
        text = (folder / TEXT).read_text("utf-8")
    except OSError as error:
        raise InvalidInput(
            f"{folder / TEXT} cannot be read ({error.strerror}); name the folder with it"
        ) from error
    found: dict[str, list[Figures]] = {}
    for path in sorted(folder.glob("*.json")):
        for figures in read_figures(path):
            found.setdefault(figures["suite"], []).append(figures)
    homeless = found.keys() - set(_PLACE.findall(text))
    if homeless:
        raise InvalidInput(
            f"{folder / TEXT} has no place for suite {min(homeless)}; add <!-- figures: {min(homeless)} -->"
        )
    return _PLACE.sub(lambda place: _section(found, place[1]), text)


def _section(found: Mapping[str, Sequence[Figures]], suite: str) -> str:
    """A paragraph and a table for each machine; both kinds of device are spoken of."""
    parts = []
    for device, name in DEVICES.items():
        here = [figures for figures in found.get(suite, ()) if figures["device"] == device]
        parts += [f"{name}: {render(figures)}" for figures in here] or [f"{name}: not measured."]
    return "\n\n".join(parts)
