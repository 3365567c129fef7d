"""A memory plan in lines for people. Knows nothing of how plans are made."""

from pixart_sigma.pipeline.memory.limit import in_words
from pixart_sigma.pipeline.memory.plan import FROM_CACHE, MemoryPlan

_PARTS = {"text": "text encoder", "denoise": "transformer", "decode": "autoencoder"}


def plan_lines(plan: MemoryPlan, device: str, dtype: str) -> list[str]:
    """A heading, a table of stages, and the peak beside the limit."""
    rows = [("stage", "in memory", "how", "peak", "mapped")]
    known = plan.stages[0].how == FROM_CACHE  # and the text encoder is not loaded
    for stage in plan.stages:
        if not plan.staged:
            parts = "all but the text encoder" if known else "all parts"
        else:
            parts = "-" if stage.how == FROM_CACHE else _PARTS[stage.stage]
        mapped = in_words(stage.mapped_bytes) if stage.mapped_bytes else "-"
        rows.append((stage.stage, parts, stage.how, in_words(stage.num_bytes), mapped))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return [
        f"memory plan ({device}, {dtype}): " + ("stage by stage" if plan.staged else "everything resident"),
        *(line.rstrip() for line in lines),
        f"predicted peak {in_words(plan.peak_bytes)} of {in_words(plan.limit_bytes)}; "
        f"{in_words(plan.process_bytes)} of it are the process itself; mapped files are not counted",
    ]
