"""metrics.jsonl: one JSON object a line, with the step, the seconds of training so far, and figures or an event.

    {"step": 200, "seconds": 31.4, "loss": 0.31, "learning_rate": 2e-05}
    {"step": 200, "seconds": 31.9, "event": "resumed", "detail": "…"}

A figure that is not finite is null, which every JSON reader knows. This module knows nothing of what the figures mean.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pixart_sigma.weights.atomic import written_whole


class Metrics:
    """Appends to metrics.jsonl; on resuming, lines beyond the checkpoint are dropped and the clock goes on."""

    def __init__(self, path: Path, done: int, quiet: bool = False) -> None:
        """`done`: the steps that the checkpoint holds. A `quiet` one, of any rank but the first, writes nothing."""
        self._path = path
        self._quiet = quiet
        self._began = time.time()
        if quiet or not path.exists():
            return
        found = read_metrics(path)
        kept = [record for record in found if record["step"] <= done]
        with written_whole(path) as temporary:
            temporary.write_text("".join(map(_line, kept)), "utf-8")
        if kept:
            self._began -= kept[-1]["seconds"]
        if found:
            lost = max(record["step"] for record in found) - done
            self.event(done, "resumed", f"{lost:,} steps done again" if lost > 0 else "")

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Figures after `step` steps."""
        self._append(step, {name: value if math.isfinite(value) else None for name, value in figures.items()})

    def event(self, step: int, kind: str, detail: str = "") -> None:
        """Something that happened after `step` steps, such as "skipped step"; the report counts them by kind."""
        self._append(step, {"event": kind, "detail": detail})

    def _append(self, step: int, content: dict[str, Any]) -> None:
        if self._quiet:
            return
        record = {"step": step, "seconds": round(time.time() - self._began, 1), **content}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_line(record))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl, in its order; a line that a killed run left unfinished is left out.

    Each has "step" (int) and "seconds" (float); see the module for the rest. Raises OSError if there is no file.
    """
    lines = path.read_text("utf-8", errors="replace").splitlines()
    return [record for record in map(_parsed, lines) if record is not None]


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, allow_nan=False) + "\n"


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        # Earlier versions wrote NaN, which is not JSON but Python's json.
        record = json.loads(line, parse_constant=lambda _: None)
    except json.JSONDecodeError:
        return None
    # The beginning of an object is no object, but what a broken disk leaves may be anything.
    return record if isinstance(record, dict) and {"step", "seconds"} <= record.keys() else None
