"""Which shortcuts are measured. Knows nothing of tensors, nor of what is measured on the pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pixart_sigma.benchmark.named import named
from pixart_sigma.errors import InvalidInput
from pixart_sigma.pipeline.kv_compression import KVCompressionRequest
from pixart_sigma.pipeline.shortcuts import NO_SHORTCUTS, Shortcuts, read_schedule

FEWEST_STEPS = 4
"""A quarter of them is a step, and reuse over three of them still leaves something out."""
_MIDDLE, _BEGINNING = (0.1, 0.8), (0.0, 0.6)


@dataclass(frozen=True)
class Scenario:
    """A shortcut, or several together; none: the exact pictures that the others are measured by."""

    name: str
    shortcuts: Shortcuts = NO_SHORTCUTS
    kv_compression: KVCompressionRequest | None = None
    int8: bool = False

    @property
    def options(self) -> str:
        """Those of `pixart-sigma generate`."""
        words = [f"--{name.replace('_', '-')} {value}" for name, value in self.shortcuts.described().items()]
        if self.kv_compression is not None:
            words.append("--kv-compression {}x{}".format(*self.kv_compression.window))
        return " ".join([*words, *["--int8"] * self.int8])


EXACT = Scenario("exact")


def scenarios(num_steps: int) -> list[Scenario]:
    """All shortcuts, for a sampling of so many steps. Raises InvalidInput for too few."""
    if num_steps < FEWEST_STEPS:
        raise InvalidInput(
            f"{num_steps} steps are too few to leave something out of; sample in at least {FEWEST_STEPS} (--steps)"
        )
    return [
        *(
            Scenario("kv-{}x{}".format(*window), kv_compression=KVCompressionRequest(window))
            for window in ((1, 2), (2, 2), (3, 3))
        ),
        Scenario("interval-middle", Shortcuts(guidance_interval=_MIDDLE)),
        Scenario("interval-beginning", Shortcuts(guidance_interval=_BEGINNING)),
        Scenario("frozen-half", Shortcuts(freeze_captions_after=num_steps // 2)),
        Scenario("frozen-quarter", Shortcuts(freeze_captions_after=num_steps // 4)),
        Scenario("reuse-2", Shortcuts(reuse_blocks=2)),
        Scenario("reuse-3", Shortcuts(reuse_blocks=3)),
        Scenario("int8", int8=True),
        Scenario("together", Shortcuts(guidance_interval=_MIDDLE, reuse_blocks=2)),
    ]


def choose(names: list[str], schedules: Sequence[Path], num_steps: int, guided: bool) -> list[Scenario]:
    """Those named, or all that such a sampling has: without guidance there is no interval to leave it out of.

    schedules: files, see `read_schedule`; each is one more, named as its file. Raises InvalidInput for an unknown name,
    for too few steps, for what was named and does not fit, and for schedules that cannot be read or have a name that is
    there.
    """
    known = scenarios(num_steps)
    chosen = named(known, names) or [
        scenario for scenario in known if guided or scenario.shortcuts.guidance_interval is None
    ]
    taken = {scenario.name for scenario in (EXACT, *known)}
    for path in schedules:
        if path.stem in taken:
            raise InvalidInput(f"schedule {path} has the name of another row, {path.stem}; rename the file")
        taken.add(path.stem)
        chosen.append(Scenario(path.stem, Shortcuts(reuse_blocks=read_schedule(path))))
    for scenario in chosen:
        scenario.shortcuts.check(num_steps, guided)
    return chosen
