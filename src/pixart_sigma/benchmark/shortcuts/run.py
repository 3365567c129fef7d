"""Suite shortcuts from its options to its table. The command's other half."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pixart_sigma.allocator import keep_freed_memory
from pixart_sigma.benchmark.figures import collect, render
from pixart_sigma.benchmark.outcome import Outcome, Output, Say, benchmark_device, check_rounds
from pixart_sigma.benchmark.shortcuts.measure import measure_shortcuts
from pixart_sigma.benchmark.shortcuts.scenarios import choose
from pixart_sigma.benchmark.shortcuts.shortcuts_table import NOTE
from pixart_sigma.benchmark.table import Row
from pixart_sigma.evaluation.request import EvaluationRequest
from pixart_sigma.pipeline.device import resolve_dtype
from pixart_sigma.pipeline.request import Request, make_request
from pixart_sigma.pipeline.samplers import OWN_SAMPLERS, kinds_of_model
from pixart_sigma.weights.folder import base_resolution


def run_shortcuts(
    scenarios: Sequence[str],
    schedules: Sequence[Path],
    request: EvaluationRequest,
    rounds: int,
    output: Output,
    say: Say,
) -> Outcome:
    """Run suite shortcuts. scenarios: names; none: all. schedules: files for `reuse_blocks`, a row each.

    Its pictures are in request.output, and kept. Raises InvalidInput for unknown names, for no rounds, for fewer steps
    than shortcuts need, and for schedules that do not fit the steps.
    """
    check_rounds(rounds)
    asked = one_picture(request)
    chosen = choose(list(scenarios), schedules, asked.num_steps, asked.guidance_scale > 1)
    where = benchmark_device(request.device)
    keep_freed_memory()
    options = {
        "model": request.folders.name,
        "size": f"{asked.width}x{asked.height}",
        "steps": asked.num_steps,
        "dtype": str(resolve_dtype("auto", where)).removeprefix("torch."),
        "prompts": len(request.prompts),
        "rounds": rounds,
    }
    rows: list[Row] = []
    for row in measure_shortcuts(request, asked, chosen, where, rounds, say):
        rows.append(row)
        figures = collect("shortcuts", where, options, rows) | {"note": NOTE}
        output.write(figures)
    failures = (f"{row['scenario']}: {row['failed']}" for row in rows if row["failed"] is not None)
    return Outcome(render(figures), tuple(failures))


def one_picture(request: EvaluationRequest) -> Request:
    """The first prompt's, exact, in the model's own way where nothing else is asked for."""
    side = base_resolution(request.folders)
    height, width = request.size or (side, side)
    prompt = request.prompts[0]
    return make_request(
        OWN_SAMPLERS[kinds_of_model(request.folders)[0]],
        request.num_steps,
        request.guidance_scale,
        prompts=(prompt.text,),
        height=height,
        width=width,
        seed=prompt.seed,
    )
