"""One entry for every reproduction: a name and an output folder in, a page with tables out. Killed, it goes on.

    output/NAME.md, NAME.json, NAME.png, and of studies NAME.jpg
    output/stages, output/tables         see `stages.py`; studies in the same output share them

Knows nothing of commands.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pixart_sigma.evaluation.pictures import picture_file
from pixart_sigma.evaluation.prompts import evenly
from pixart_sigma.reproduction.chain import reproduce_chain
from pixart_sigma.reproduction.measure import measure, measured_folder, prompts_of, shared_reference
from pixart_sigma.reproduction.metric import HELD_OUT_ERROR, STEP_SECONDS
from pixart_sigma.reproduction.plan import CHAIN, WORDS, check
from pixart_sigma.reproduction.results import CellResult, Cost, judge_claims
from pixart_sigma.reproduction.scale import FAST, FULL, Scale
from pixart_sigma.reproduction.stages import (
    Workshop,
    cost_from_scratch,
    export_folder,
    held_out_error,
    open_workshop,
    seconds_per_step,
    stage_cost,
    stage_folder,
    train_stage,
)
from pixart_sigma.reproduction.strip import Strip
from pixart_sigma.reproduction.studies import STUDIES
from pixart_sigma.reproduction.study import Cell, Study, Trained, stages_of
from pixart_sigma.reproduction.words import english_tagger, reproduce_words
from pixart_sigma.reproduction.write import write_study
from pixart_sigma.weights.folder import POCKET

_NO_COST = Cost(0.0, 0)
_SHOWN = 8
"""Prompts."""

Say = Callable[[str], None]


def reproduce(
    name: str, output: Path, num_seeds: int, fast: bool, say: Say, device: str = "auto", pocket: str = POCKET
) -> Path:
    """Train and measure what is missing, write the files → the page. `pocket`: whose encoders studies stand on.

    Raises InvalidInput for an unknown name or fewer than two seeds, Stopped after a signal.
    """
    check(name, num_seeds)
    scale = FAST if fast else FULL
    if name in WORDS:
        return reproduce_words(output, scale, english_tagger())
    if name == CHAIN:
        return reproduce_chain(output, scale, fast, device, say)
    return reproduce_study(STUDIES[name](scale), scale, open_workshop(output, pocket), num_seeds, device, say)


def reproduce_study(
    study: Study, scale: Scale, workshop: Workshop, num_seeds: int, device: str, say: Say
) -> Path:
    """All seeds of a study, one after the other."""
    reference = shared_reference(workshop.output, scale, device)
    stages = stages_of(study.cells)
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    for seed in range(num_seeds):
        for number, stage in enumerate(stages, 1):
            say(f"seed {seed}, stage {number} of {len(stages)}: {stage.name}")
            train_stage(workshop, stage, seed, device)
        for cell, steps in study.points:
            say(f"seed {seed}, measuring {cell.label} after {steps:,} steps")
            trained = Trained(cell.stage, steps)
            figures = {
                STEP_SECONDS: seconds_per_step(workshop, trained, seed),
                HELD_OUT_ERROR: held_out_error(workshop, trained, seed),
            }
            for prompts in study.prompts:
                model, output = _measured(workshop, trained, seed)
                figures |= measure(model, output, prompts, scale, reference, device)
            found.setdefault((cell.label, steps), []).append(figures)
    results = {cell.label: _result(cell, found, workshop, num_seeds) for cell in study.cells}
    strip = _strip(study, scale, workshop, reference)
    return write_study(study, results, judge_claims(study, results), strip, workshop.output)


def _measured(workshop: Workshop, trained: Trained, seed: int) -> tuple[Path, Path]:
    """The export, and where it is measured."""
    folder = stage_folder(workshop, trained.stage, seed)
    return export_folder(workshop, trained, seed), folder / f"measured-{trained.steps}"


def _strip(study: Study, scale: Scale, workshop: Workshop, reference: Path) -> Strip:
    """The first seed's pictures of some of the study's first set of prompts."""
    kind = study.prompts[0]
    shown = evenly(prompts_of(kind, scale.num_prompts), min(_SHOWN, scale.num_prompts))
    rows = {}
    for cell in study.cells:
        folder = measured_folder(
            *_measured(workshop, Trained(cell.stage, cell.at[-1]), 0), kind, scale, reference
        )
        rows[cell.label] = [picture_file(folder, prompt) for prompt in shown]
    return Strip(tuple(prompt.text for prompt in shown), rows)


def _result(
    cell: Cell, found: dict[tuple[str, int], list[dict[str, float]]], workshop: Workshop, num_seeds: int
) -> CellResult:
    last = Trained(cell.stage, cell.at[-1])
    values = {
        steps: {
            metric: [figures[metric] for figures in found[cell.label, steps]]
            for metric in found[cell.label, steps][0]
        }
        for steps in cell.at
    }
    own = (stage_cost(workshop, last, seed) for seed in range(num_seeds))
    whole = (cost_from_scratch(workshop, last, seed) for seed in range(num_seeds))
    return CellResult(cell.label, values, sum(own, _NO_COST), sum(whole, _NO_COST))
