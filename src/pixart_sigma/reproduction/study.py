"""What a study is: its question, its cells, how each cell's model comes about, and the orderings that the paper claims.

Values only: knows nothing of files, tensors, or how a stage is trained.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pixart_sigma.reproduction.paper import PaperTable


@dataclass(frozen=True)
class Stage:
    """One training: a packaged recipe with `overrides` (as `--set`), exported after each of `lengths` steps, rising.

    The rate is constant, so that an export at a length is what a run of that length gives. `inputs` are the recipe's
    keys that name folders, each with what stands there: a `Trained`, or None for the pocket model. A stage that is not
    `seeded` is the same for all seeds. `side`: of its pictures, in pixels; 0 if it learns from several.
    """

    name: str
    recipe: str
    lengths: tuple[int, ...]
    overrides: tuple[str, ...] = ()
    inputs: tuple[tuple[str, Trained | None], ...] = ()
    seeded: bool = True
    side: int = 0

    @property
    def last(self) -> Trained:
        """What it has become at its end."""
        return Trained(self, self.lengths[-1])


@dataclass(frozen=True)
class Trained:
    """What a stage has become after some of its `lengths`."""

    stage: Stage
    steps: int


@dataclass(frozen=True)
class Cell:
    """A row of the table, or a curve: a stage measured after each of the steps `at`; the last is the table's."""

    label: str
    stage: Stage
    at: tuple[int, ...]


@dataclass(frozen=True)
class Claim:
    """The cell `better` is better than the cell `worse` by a metric, after `at` steps of both (None: each's last).

    `ours`: a question of our own, which the paper does not answer.
    """

    better: str
    worse: str
    metric: str
    at: int | None = None
    ours: bool = False


@dataclass(frozen=True)
class Study:
    """A name, a question in one sentence, cells with different labels, claims about them, and the paper's own numbers.

    `prompts`: the sets of prompts that are measured on. `note`: what to bear in mind when reading the table.
    """

    name: str
    question: str
    cells: tuple[Cell, ...]
    claims: tuple[Claim, ...]
    paper: PaperTable
    metrics: tuple[str, ...]
    prompts: tuple[str, ...] = ("pocket",)
    note: str = ""

    @property
    def points(self) -> list[tuple[Cell, int]]:
        """Every cell with each of the steps after which it is measured."""
        return [(cell, steps) for cell in self.cells for steps in cell.at]

    def peers(self, claim: Claim) -> list[Cell]:
        """The cells that a claim compares, and all others of their resolutions at the same steps."""
        compared = {cell.label: cell for cell in self.cells if cell.label in (claim.better, claim.worse)}
        sides = {cell.stage.side for cell in compared.values()}
        return [
            cell
            for cell in self.cells
            if cell.stage.side in sides and (claim.at is None or claim.at in cell.at)
        ]


def stages_of(cells: Iterable[Cell]) -> list[Stage]:
    """Every stage that the cells need, once, each after those that it starts from."""
    found: dict[Stage, None] = {}
    for cell in cells:
        for stage in _with_inputs(cell.stage):
            found.setdefault(stage)
    return list(found)


def _with_inputs(stage: Stage) -> Iterator[Stage]:
    for _, given in stage.inputs:
        if given is not None:
            yield from _with_inputs(given.stage)
    yield stage
