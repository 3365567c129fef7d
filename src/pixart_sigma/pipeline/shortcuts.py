"""Shortcuts as a call asks for them: opt-ins that take work out of sampling, and change the picture.

What each is for: docs/shortcuts.md. What each does is planned in `diffusion/shortcuts/plan.py`. Key/value
compression and int8 weights change the model instead, and have options of their own. Knows nothing of tensors.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixart_sigma.diffusion.shortcuts.plan import (
    SUBLAYERS,
    ReuseSchedule,
    StepPlan,
    check_interval,
    guided_steps,
    make_plan,
)
from pixart_sigma.errors import InvalidInput
from pixart_sigma.model.config import TransformerConfig

_WHOLE = (0.0, 1.0)
_ECAD = "cache_schedule"
_ECAD_SUBLAYERS = ("attn1", "attn2", "ff")  # in the order of SUBLAYERS
_MOST = 1000  # steps or blocks; more than any sampling or model has


@dataclass(frozen=True)
class Shortcuts:
    """What is left out of sampling; by default nothing.

    guidance_interval: (low, high), fractions of the sampling from 0, the noisiest, to 1; steps outside of it are not
    guided. freeze_captions_after: so many steps are as usual; the others use the last of these steps' cross-attention,
    the mean of both branches, and are not guided. reuse_blocks: self-attention, cross-attention and MLP are computed at
    every N-th step only, or as a schedule says.
    Raises InvalidInput for values that no sampling has.
    """

    guidance_interval: tuple[float, float] | None = None
    freeze_captions_after: int | None = None
    reuse_blocks: int | ReuseSchedule | None = None

    def __post_init__(self) -> None:
        if self.guidance_interval is not None:
            check_interval(self.guidance_interval)

    def check(self, num_steps: int, guided: bool) -> None:
        """Raises InvalidInput for what does not fit a sampling of so many steps, guided or not, whatever the model."""
        if self.freeze_captions_after is not None:
            _check_steps("freeze_captions_after", self.freeze_captions_after, num_steps)
        if isinstance(self.reuse_blocks, int):
            _check_steps("reuse_blocks", self.reuse_blocks, num_steps)
        elif self.reuse_blocks is not None and self.reuse_blocks.num_steps != num_steps:
            raise InvalidInput(
                f"reuse schedule {self.reuse_blocks.name} is for {self.reuse_blocks.num_steps} steps, not "
                f"{num_steps}; sample in as many (--steps {self.reuse_blocks.num_steps}), or use another schedule"
            )
        if self.guidance_interval is None:
            return
        low, high = self.guidance_interval
        if not guided:
            raise InvalidInput(
                f"guidance interval {low:g}:{high:g} needs guidance, and guidance scale 1 turns it off; raise the "
                "scale, or leave the interval out"
            )
        if not any(guided_steps(num_steps, self.guidance_interval, self.freeze_captions_after)):
            before = "" if self.freeze_captions_after is None else "the first "
            raise InvalidInput(
                f"guidance interval {low:g}:{high:g} holds none of {before}"
                f"{self.freeze_captions_after or num_steps} steps; widen it, or turn guidance off (--guidance-scale 1)"
            )

    def plan(self, num_steps: int, num_blocks: int, guided: bool) -> StepPlan:
        """What is computed at each step. Raises InvalidInput for a schedule that is for another number of blocks."""
        reuse = self.reuse_blocks
        if isinstance(reuse, int):
            reuse = ReuseSchedule.every(reuse, num_steps, num_blocks)
        return make_plan(
            num_steps, guided, self.guidance_interval or _WHOLE, self.freeze_captions_after, reuse, num_blocks
        )

    def kept_bytes(
        self,
        config: TransformerConfig,
        grid: tuple[int, int],
        num_steps: int,
        guided: bool,
        pictures: int,
        itemsize: int,
    ) -> int:
        """The most that outputs kept for later steps take, with `pictures` at once on a (height, width) grid of tokens.

        The same whether branches of guidance are together or not. Raises InvalidInput as `plan` does.
        """
        kept = self.plan(num_steps, config.num_layers, guided).most_kept
        return kept * pictures * grid[0] * grid[1] * config.width * itemsize

    def described(self) -> dict[str, str]:
        """For a picture's metadata: what is left out, by name."""
        words: dict[str, str] = {}
        if self.guidance_interval is not None:
            words["guidance_interval"] = "{:g}:{:g}".format(*self.guidance_interval)
        if self.freeze_captions_after is not None:
            words["freeze_captions_after"] = str(self.freeze_captions_after)
        if isinstance(self.reuse_blocks, ReuseSchedule):
            words["reuse_blocks"] = f"{self.reuse_blocks.name} ({self.reuse_blocks.digest})"
        elif self.reuse_blocks is not None:
            words["reuse_blocks"] = str(self.reuse_blocks)
        return words


NO_SHORTCUTS = Shortcuts()


def parse_shortcuts(interval: str | None, freeze_after: int | None, reuse: str | None) -> Shortcuts:
    """`LOW:HIGH`, a number of steps, and N or a schedule's file → Shortcuts. Raises InvalidInput."""
    return Shortcuts(
        None if interval is None else _parse_interval(interval),
        freeze_after,
        None if reuse is None else _parse_reuse(reuse),
    )


def read_schedule(path: Path) -> ReuseSchedule:
    """A schedule's file, .toml of our own or .json as ECAD's search writes it → ReuseSchedule.

    TOML: `self_attention`, `cross_attention` and `mlp`, each a list with a text for every step, in which each character
    is a block: 1 is computed, 0 is used again. Raises InvalidInput for a file that is missing or anything else.
    """
    if path.suffix not in (".toml", ".json"):
        raise InvalidInput(f"reuse schedule {path} is neither .toml nor .json; convert it")
    try:
        text = path.read_text("utf-8")
        content = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise InvalidInput(
            f"reuse schedule {path} cannot be read ({error.strerror}); give another file"
        ) from error
    except ValueError as error:  # both formats' errors, and bytes that are no text
        raise InvalidInput(
            f"reuse schedule {path} is broken ({str(error).splitlines()[0]}); mend it"
        ) from error
    columns = _from_ecad(content, path) if path.suffix == ".json" else _from_rows(content, path)
    steps = zip(*columns, strict=True)
    return ReuseSchedule(tuple(tuple(zip(*step, strict=True)) for step in steps), path.name)


def _parse_interval(text: str) -> tuple[float, float]:
    low, _, high = text.partition(":")
    try:
        return float(low), float(high)
    except ValueError as error:
        raise InvalidInput(
            f"guidance interval {text!r} is not LOW:HIGH, fractions of the sampling; write for example 0.1:0.8"
        ) from error


def _parse_reuse(text: str) -> int | ReuseSchedule:
    if text.isdecimal() and len(text) <= len(str(_MOST)):
        return int(text)
    if "." not in text and not Path(text).exists():
        raise InvalidInput(
            f"reuse_blocks {text!r} is neither a number of steps nor a schedule's file; write for example 2"
        )
    return read_schedule(Path(text))


Column = Sequence[Sequence[bool]]
"""A sublayer's: by step and block whether it is computed."""


def _from_rows(content: Mapping[str, Any], path: Path) -> list[Column]:
    if set(content) != set(SUBLAYERS):
        raise InvalidInput(
            f"reuse schedule {path} has {', '.join(content) or 'nothing'}; it needs {', '.join(SUBLAYERS)}, and no more"
        )
    columns: list[Column] = []
    for sublayer in SUBLAYERS:
        rows = content[sublayer]
        if not isinstance(rows, list) or not all(
            isinstance(row, str) and row and set(row) <= set("01") for row in rows
        ):
            raise InvalidInput(
                f"reuse schedule {path} has {sublayer} that is no list of texts of 1 (computed) and 0 (used again); "
                "write one for each step, with a character for each block"
            )
        columns.append([[letter == "1" for letter in row] for row in rows])
    return _alike(columns, path)


def _from_ecad(content: Any, path: Path) -> list[Column]:
    """{"cache_schedule": {"schedule": {step: {block: {"attn1": computed, "attn2": …, "ff": …}}}}}, and more beside."""
    try:
        steps = {int(step): blocks for step, blocks in content[_ECAD]["schedule"].items()}
        table: list[Column] = [
            [[blocks[str(block)][name] for block in range(len(blocks))] for blocks in _in_order(steps)]
            for name in _ECAD_SUBLAYERS
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInput(
            f"reuse schedule {path} is not what ECAD writes (cache_schedule, schedule, steps and blocks from 0, "
            f"{', '.join(_ECAD_SUBLAYERS)}); write it as .toml"
        ) from error
    if not all(isinstance(one, bool) for column in table for row in column for one in row):
        raise InvalidInput(f"reuse schedule {path} has values that are neither true nor false; mend it")
    return _alike(table, path)


def _in_order(steps: Mapping[int, Any]) -> list[Any]:
    return [steps[step] for step in range(len(steps))]


def _alike(columns: list[Column], path: Path) -> list[Column]:
    """The same, if each has as many steps, and as many blocks at every step."""
    if len({tuple(map(len, column)) for column in columns}) != 1:
        raise InvalidInput(
            f"reuse schedule {path} has other steps or blocks for some of {', '.join(SUBLAYERS)}; make them alike"
        )
    return columns


def _check_steps(name: str, value: int, num_steps: int) -> None:
    if not 1 <= value <= num_steps:
        raise InvalidInput(
            f"{name} {value} is outside 1 to {num_steps}, the number of steps; {max(1, num_steps // 2)} is a start"
        )
