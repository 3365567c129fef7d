"""Scenarios by their names, the same rule for all suites. Knows nothing of what scenarios are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from pixart_sigma.errors import InvalidInput


class Named(Protocol):
    """A scenario of any suite."""

    @property
    def name(self) -> str:
        """As in a table's row, and after --scenario."""


Scenario = TypeVar("Scenario", bound=Named)


def named(scenarios: Iterable[Scenario], names: Sequence[str]) -> list[Scenario]:
    """Those that are named, in the names' order. Raises InvalidInput for an unknown name."""
    known = {scenario.name: scenario for scenario in scenarios}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InvalidInput(f"unknown scenario {unknown[0]!r}; one of {', '.join(known)} (--scenario)")
    return [known[name] for name in names]
