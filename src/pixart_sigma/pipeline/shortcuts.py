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
        """Raises InvalidInput for what does not fit a sampling of so many steps, guided or not, whatever the model.

        So it does for what would leave nothing out: a picture would be said to have a shortcut that it has not.
        """
        if self.freeze_captions_after is not None:
            most = num_steps - 1
            _check_steps(
                "freeze_captions_after", self.freeze_captions_after, (1, most), num_steps // 2, num_steps
            )
        if isinstance(self.reuse_blocks, int):
            _check_steps("reuse_blocks", self.reuse_blocks, (2, num_steps), 2, num_steps)
        elif self.reuse_blocks is not None:
            _check_schedule(self.reuse_blocks, num_steps)
        if self.guidance_interval is not None:
            self._check_interval(self.guidance_interval, num_steps, guided)

    def _check_interval(self, interval: tuple[float, float], num_steps: int, guided: bool) -> None:
        """Whether some steps are guided and some are not, of those that would be."""
        low, high = interval
        if not guided:
            raise InvalidInput(
                f"guidance interval {low:g}:{high:g} needs guidance, and guidance scale 1 turns it off; raise the "
                "scale, or leave the interval out"
            )
        steps = guided_steps(num_steps, interval, self.freeze_captions_after)
        before = "" if self.freeze_captions_after is None else "the first "
        those = f"{before}{self.freeze_captions_after or num_steps} steps"
        if not any(steps):
            raise InvalidInput(
                f"guidance interval {low:g}:{high:g} holds none of {those}; widen it, or turn guidance off "
                "(--guidance-scale 1)"
            )
        if steps == guided_steps(num_steps, _WHOLE, self.freeze_captions_after):
            raise InvalidInput(
                f"guidance interval {low:g}:{high:g} leaves out none of {those}; narrow it, or leave the interval out"
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
    number = _parse_number(text)
    if number is not None:
        if not number.is_integer():
            raise InvalidInput(f"reuse_blocks {text!r} is no whole number of steps; write for example 2")
        return int(number)
    if "." not in text and not Path(text).exists():
        raise InvalidInput(
            f"reuse_blocks {text!r} is neither a number of steps nor a schedule's file; write for example 2"
        )
    return read_schedule(Path(text))


def _parse_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


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


def _check_schedule(schedule: ReuseSchedule, num_steps: int) -> None:
    if schedule.num_steps != num_steps:
        raise InvalidInput(
            f"reuse schedule {schedule.name} is for {schedule.num_steps} steps, not {num_steps}; sample in as many "
            f"(--steps {schedule.num_steps}), or use another schedule"
        )
    if all(one for step in schedule.computed for block in step for one in block):
        raise InvalidInput(
            f"reuse schedule {schedule.name} computes everything at every step; leave something out in it, or leave "
            "the schedule out"
        )


def _check_steps(name: str, value: int, allowed: tuple[int, int], start: int, num_steps: int) -> None:
    """allowed: the least and the most with which something is left out of so many steps."""
    lowest, highest = allowed
    if lowest > highest:
        raise InvalidInput(f"{name} {value} leaves nothing out of a single step; leave {name} out")
    if not lowest <= value <= highest:
        raise InvalidInput(
            f"{name} {value} is outside {lowest} to {highest}, for {num_steps} steps; {start} is a start"
        )
