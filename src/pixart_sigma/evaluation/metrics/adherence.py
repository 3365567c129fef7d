"""Prompt adherence: what a prompt states, beside what the checker has read off the picture.

What is not stated does not count, nor does what is there besides. Knows nothing of how a picture is read.
"""

from __future__ import annotations

from dataclasses import dataclass

from pixart_sigma.evaluation.judges.checker import Reading
from pixart_sigma.world import Scene

ATTRIBUTES = (
    "kind",
    "count",
    "colour",
    "place",
    "size",
    "background",
    "time",
    "weather",
    "style",
    "sign",
    "sign_colour",
)
"""What can be stated, in the order of tables."""


@dataclass(frozen=True)
class Verdict:
    """One statement of a prompt, about the thing of `kind` or about the picture (None), and what was read instead.

    `read` is None where the thing is not seen at all.
    """

    attribute: str
    kind: str | None
    stated: str | int
    read: str | int | None

    @property
    def right(self) -> bool:
        """Whether the picture shows what the prompt states."""
        return self.stated == self.read


def judge(scene: Scene, stated: frozenset[str], reading: Reading) -> list[Verdict]:
    """A verdict for each statement of the prompt that `prompt_caption(scene, stated)` makes.

    Kinds, counts, and whether there is a sign are always stated, and the places of things that are above or in front
    of one another. The words of a sign are OCR's business.
    """
    verdicts = []
    placed = scene.layout in ("stack", "depth") or ("place" in stated and scene.layout != "row")
    for thing in scene.things:
        seen = reading.things.get(thing.kind)
        verdicts.append(Verdict("kind", thing.kind, thing.kind, None if seen is None else thing.kind))
        names = ["count"] + [name for name in ("colour", "size") if name in stated] + ["place"] * placed
        verdicts += [
            Verdict(name, thing.kind, getattr(thing, name), getattr(seen, name, None)) for name in names
        ]
    if scene.sign is not None:
        verdicts.append(Verdict("sign", None, scene.sign.kind, reading.sign))
        if "colour" in stated:
            verdicts.append(Verdict("sign_colour", None, scene.sign.colour, reading.sign_colour))
    for name in ("background", "time", "weather", "style"):
        truth = getattr(scene, name)
        if name in stated and truth is not None:
            verdicts.append(Verdict(name, None, truth, getattr(reading, name)))
    return verdicts
