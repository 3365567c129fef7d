"""Tables 3a, 3b and 3c: which blocks are compressed, by which operator, over which windows."""

from __future__ import annotations

from itertools import pairwise

from pixart_sigma.reproduction.metric import ADHERENCE, CLIP_SCORE, CMMD, FID, STEP_SECONDS
from pixart_sigma.reproduction.paper import TABLE_3A, TABLE_3B, TABLE_3C
from pixart_sigma.reproduction.scale import Scale
from pixart_sigma.reproduction.studies.stages import compressed, compressed_again, raised, raised_again
from pixart_sigma.reproduction.study import Cell, Claim, Stage, Study

_QUALITY = (FID, CMMD, CLIP_SCORE, ADHERENCE)
_WINDOWS = ((1, 2), (2, 2), (3, 3))


def table3a(scale: Scale) -> Study:
    """Half of the blocks each."""
    return Study(
        "table3a",
        "Which half of the blocks can be compressed at the least cost?",
        (
            _cell("none", raised(scale)),
            *(_cell(blocks, compressed(scale, blocks=blocks)) for blocks in ("shallow", "middle")),
            _cell("deep", compressed(scale)),
        ),
        (
            Claim("none", "deep", FID),
            Claim("deep", "middle", FID),
            Claim("deep", "shallow", FID),
            Claim("middle", "shallow", FID),
        ),
        TABLE_3A,
        _QUALITY,
    )


def table3b(scale: Scale) -> Study:
    """2×2 tokens into one, in the deep half."""
    return Study(
        "table3b",
        "Which operator compresses keys and values at the least cost?",
        (
            _cell("none", raised(scale)),
            _cell("token discarding", compressed(scale, operator="discard")),
            _cell("token pooling", compressed(scale, operator="average")),
            _cell("conv 2×2", compressed(scale)),
        ),
        (
            Claim("none", "conv 2×2", FID),
            Claim("conv 2×2", "token discarding", FID),
            Claim("conv 2×2", "token pooling", FID),
            Claim("token discarding", "token pooling", FID),
        ),
        TABLE_3B,
        _QUALITY,
    )


def table3c(scale: Scale) -> Study:
    """Windows at the middle and the high resolution."""
    middle = {"1×1": raised(scale)} | {_named(each): compressed(scale, each) for each in _WINDOWS}
    high = {"1×1": raised_again(scale)} | {_named(each): compressed_again(scale, each) for each in _WINDOWS}
    windows = list(middle)
    return Study(
        "table3c",
        "What do larger windows of compression cost, and what do they save, at two resolutions?",
        (
            *(_cell(f"middle, {name}", stage) for name, stage in middle.items()),
            *(_cell(f"high, {name}", stage) for name, stage in high.items()),
        ),
        (
            Claim("middle, 1×1", "middle, 1×2", FID),
            Claim("middle, 1×2", "middle, 2×2", FID),
            Claim("high, 1×1", "high, 3×3", FID),
            Claim("high, 1×2", "high, 2×2", FID),
            Claim("high, 2×2", "high, 3×3", FID),
            *(
                # The paper's table has no ratio of 9 at its middle resolution.
                Claim(
                    f"{level}, {larger}",
                    f"{level}, {smaller}",
                    STEP_SECONDS,
                    ours=(level, larger) == ("middle", "3×3"),
                )
                for level in ("middle", "high")
                for smaller, larger in pairwise(windows)
            ),
        ),
        TABLE_3C,
        (*_QUALITY, STEP_SECONDS),
        note="At 64 and 256 tokens self-attention's scores are a small part of a step, so that little time is to be "
        "saved; the paper saves at 4096. Times are comparable only if nothing else ran on the machine.",
    )


def _named(window: tuple[int, int]) -> str:
    return f"{window[0]}×{window[1]}"


def _cell(label: str, stage: Stage) -> Cell:
    return Cell(label, stage, stage.lengths[-1:])
