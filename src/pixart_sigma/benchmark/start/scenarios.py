"""What is made: a picture of the pocket model, which is in the package, so that everybody can check the figures."""

from __future__ import annotations

from dataclasses import dataclass

from pixart_sigma.benchmark.named import named

PROMPT = "a red house by a lake"


@dataclass(frozen=True)
class Scenario:
    """A square picture of `pixels` along a side, in so many steps."""

    name: str
    pixels: int
    num_steps: int


SCENARIOS = (Scenario("pocket-256", 256, 20),)
TINY = (Scenario("tiny", 64, 2),)
"""For the tests: its figures mean nothing."""


def choose(names: list[str]) -> list[Scenario]:
    """Those named, or all but the tiny one. Raises InvalidInput for an unknown name."""
    return named((*SCENARIOS, *TINY), names) or list(SCENARIOS)
