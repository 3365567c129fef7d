"""The pocket model as the paper makes Σ from α: link by link, each a packaged recipe; what each cost and gained.

    output/LINK/                  a training's folder, its `export` the next links' start
    output/LINK-measured-…        a link that makes pictures, as `evaluate` writes it
    output/chain.md, chain.json

The recipes refer to `runs/LINK/export`; here that is `output/LINK/export`. Knows nothing of what the recipes say else.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from pixart_sigma.reproduction.links import LINKS, link_overrides, link_recipe, shrunk
from pixart_sigma.reproduction.measure import measure, shared_reference
from pixart_sigma.reproduction.metric import ADHERENCE, CLIP_SCORE, CMMD, FID, METRICS
from pixart_sigma.reproduction.paper import Value
from pixart_sigma.reproduction.results import Cost
from pixart_sigma.reproduction.scale import Scale
from pixart_sigma.reproduction.stages import METRICS_FILE
from pixart_sigma.reproduction.write import cost_cells, markdown_table, to_json, write_text
from pixart_sigma.training.recipe import Recipe, TransformerRecipe, load_recipe
from pixart_sigma.training.watching.metrics import read_metrics

_METRICS = (FID, CMMD, CLIP_SCORE, ADHERENCE)
_HELD_OUT = "validation_"

Say = Callable[[str], None]


@dataclass(frozen=True)
class LinkResult:
    """`held_out`: the last validation's figures. `measured`: metric → value, empty where no pictures are made."""

    link: str
    cost: Cost
    held_out: dict[str, float]
    measured: dict[str, float]


def reproduce_chain(output: Path, scale: Scale, fast: bool, device: str, say: Say) -> Path:
    """Train the links that are not finished, measure them → the page. Raises Stopped after a signal."""
    output.mkdir(parents=True, exist_ok=True)
    output = output.resolve()
    results = []
    reference = shared_reference(output, scale, device)
    for number, link in enumerate(LINKS, 1):
        say(f"link {number} of {len(LINKS)}: {link}")
        recipe = _train(link, output, scale, fast, device)
        measured = {}
        if isinstance(recipe, TransformerRecipe):
            say(f"measuring {link}")
            export = output / link / "export"
            measured = measure(export, output / f"{link}-measured", "pocket", scale, reference, device)
        results.append(_result(link, recipe, output, measured))
    write_text(output / "chain.json", to_json([asdict(result) for result in results]))
    page = output / "chain.md"
    write_text(page, chain_page(results))
    return page


def chain_page(results: list[LinkResult]) -> str:
    """Markdown: a row a link."""
    rows: list[list[Value]] = []
    for result in results:
        figures = [
            None if name not in result.measured else f"{result.measured[name]:.{METRICS[name].digits}f}"
            for name in _METRICS
        ]
        held_out = ", ".join(f"{name} {value:.4g}" for name, value in result.held_out.items())
        rows.append([result.link, *cost_cells(result.cost), *figures, held_out])
    headings = (METRICS[name].heading for name in _METRICS)
    table = markdown_table(["link", "hours", "samples", *headings, "held-out figures"], rows)
    return "\n\n".join(["# chain", "What each link of the pocket model costs and gains.", table]) + "\n"


def _train(link: str, output: Path, scale: Scale, fast: bool, device: str) -> Recipe:
    """Unless it is finished → its recipe."""
    from pixart_sigma.training.run import train

    name, folder = link_recipe(link), output / link
    overrides = [*(shrunk(link, scale) if fast else []), f"run.device={json.dumps(device)}"]
    overrides += link_overrides(load_recipe(name, overrides), output)
    recipe = load_recipe(name, overrides)
    if not _finished(folder, recipe):
        train(name, folder, overrides, resume=True)
    return recipe


def _finished(folder: Path, recipe: Recipe) -> bool:
    """An export may be half-written; a training notes it once it is whole."""
    path = folder / METRICS_FILE
    return path.exists() and any(
        record["step"] == recipe.run.steps and any(name.startswith("export_") for name in record)
        for record in read_metrics(path)
    )


def _result(link: str, recipe: Recipe, output: Path, measured: dict[str, float]) -> LinkResult:
    records = read_metrics(output / link / METRICS_FILE)
    validated = [record for record in records if f"{_HELD_OUT}seconds" in record]
    held_out = {
        name.removeprefix(_HELD_OUT): value
        for name, value in (validated[-1] if validated else {}).items()
        if name.startswith(_HELD_OUT) and name != f"{_HELD_OUT}seconds" and value is not None
    }
    seconds = max(record["seconds"] for record in records)
    return LinkResult(link, Cost(seconds, recipe.run.steps * recipe.run.batch_size), held_out, measured)
