"""What key/value compression saves of a step's time: the cost model against the paper's Table 3c and 3d.

Knows nothing of pictures' quality.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pixart_sigma.model import KVCompression, TransformerConfig
from pixart_sigma.training.plan.cost import forward_flops

DEEP_BLOCKS = tuple(range(14, 28))
WINDOWS = {2: (1, 2), 4: (2, 2), 9: (3, 3)}

_Row = tuple[int, int, Literal["training", "sampling"], float]
PAPER: tuple[_Row, ...] = (
    (512, 2, "training", 0.04),
    (512, 4, "training", 0.09),
    (1024, 2, "training", 0.18),
    (1024, 4, "training", 0.27),
    (1024, 9, "training", 0.35),
    (2048, 4, "training", 0.34),
    (2048, 4, "sampling", 0.34),
    (4096, 4, "training", 0.35),
    (4096, 4, "sampling", 0.34),
)
"""Side in pixels, ratio, what was timed, the saving: PixArt-Σ, Table 3c (512 and 1024) and 3d."""


@dataclass(frozen=True)
class Saving:
    """One row: the paper's saving, the cost model's for each rate of attention, and the rate that gives the paper's.

    A rate is attention's relative to that of the other products. `fitting_rate` is None where no rate gives it.
    """

    side: int
    ratio: int
    phase: str
    paper: float
    predicted: tuple[float, ...]
    fitting_rate: float | None


def kv_savings(
    attention_rates: Sequence[float] = (1.0, 0.2), config: TransformerConfig | None = None
) -> list[Saving]:
    """The paper's rows on XL/2, compressed in blocks 14 to 27. Training and sampling save alike in this model."""
    config = config or TransformerConfig()
    rows = []
    for side, ratio, phase, paper in PAPER:
        predicted = tuple(predicted_saving(config, side, ratio, rate) for rate in attention_rates)
        rows.append(Saving(side, ratio, phase, paper, predicted, _fitting_rate(config, side, ratio, paper)))
    return rows


def predicted_saving(config: TransformerConfig, side: int, ratio: int, attention_rate: float) -> float:
    """The share of the time of a square picture that compression by 2, 4 or 9 saves; uncompressed is ratio 1."""
    if ratio == 1:
        return 0.0
    compression = KVCompression(WINDOWS[ratio], "conv", DEEP_BLOCKS)
    return 1 - _time(replace(config, kv_compression=compression), side, attention_rate) / _time(
        config, side, attention_rate
    )


def render_savings(rows: Sequence[Saving], attention_rates: Sequence[float] = (1.0, 0.2)) -> str:
    """A table in Markdown."""
    head = [f"attention at {rate:g} of the matrix rate" for rate in attention_rates]
    lines = [
        "| pixels | ratio | timed | paper | " + " | ".join(head) + " | rate that gives the paper's |",
        "|---" * (5 + len(head)) + "|",
    ]
    for row in rows:
        figures = " | ".join(f"-{100 * value:.0f} %" for value in row.predicted)
        fitting = "none" if row.fitting_rate is None else f"{row.fitting_rate:.2f}"
        lines.append(
            f"| {row.side}² | {row.ratio} | {row.phase} | -{100 * row.paper:.0f} % | {figures} | {fitting} |"
        )
    return "\n".join(lines)


def _time(config: TransformerConfig, side: int, attention_rate: float) -> float:
    flops = forward_flops(config, side, side)
    return flops.matrix + flops.attention / attention_rate


def _fitting_rate(config: TransformerConfig, side: int, ratio: int, paper: float) -> float | None:
    """By bisection: the slower attention is, the more is saved."""
    slow, fast = 1e-3, 1e2
    if (
        not predicted_saving(config, side, ratio, fast)
        <= paper
        <= predicted_saving(config, side, ratio, slow)
    ):
        return None
    for _ in range(60):
        middle = (slow * fast) ** 0.5
        if predicted_saving(config, side, ratio, middle) > paper:
            slow = middle
        else:
            fast = middle
    return (slow * fast) ** 0.5
