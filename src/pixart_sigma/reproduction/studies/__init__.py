"""The studies by name, each made for a scale. What they share is in `stages.py`."""

from __future__ import annotations

from collections.abc import Callable

from pixart_sigma.reproduction.scale import Scale
from pixart_sigma.reproduction.studies.captions import captions
from pixart_sigma.reproduction.studies.figure8 import figure8
from pixart_sigma.reproduction.studies.table2 import table2
from pixart_sigma.reproduction.studies.table3 import table3a, table3b, table3c
from pixart_sigma.reproduction.study import Study

STUDIES: dict[str, Callable[[Scale], Study]] = {
    "table2": table2,
    "table3a": table3a,
    "table3b": table3b,
    "table3c": table3c,
    "fig8": figure8,
    "captions": captions,
}
