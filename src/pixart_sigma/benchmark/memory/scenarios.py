"""What memory is measured of: a part or a picture, and the ways in which it is kept small.

The first way of a scenario is what the others' outputs are compared with. Knows nothing of how it is measured.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from pixart_sigma.benchmark.inference.scenarios import TINY_SHAPES, xl_shapes
from pixart_sigma.benchmark.inference.scenarios import Scenario as InferenceScenario
from pixart_sigma.benchmark.named import named
from pixart_sigma.encoders.text_holds import TextHold
from pixart_sigma.encoders.tiling import TilingMethod
from pixart_sigma.pipeline.memory.limit import GIB, MIB
from pixart_sigma.pipeline.memory.plan import EXACT_HOLDS

Work = Literal["text", "decode", "picture"]
UHD = (2160, 3840)


@dataclass(frozen=True)
class Way:
    """One row: how the part is held or divided. limit_bytes: of a divided decode above the weights; of a whole picture,
    everything included. Without a limit nothing is divided, and freed memory is kept, as `generate` does with enough.
    strip_bytes: of exact strips lower than they would be by themselves.
    """

    name: str
    text_hold: TextHold | None = None
    method: TilingMethod | None = None
    limit_bytes: int | None = None
    strip_bytes: int | None = None

    @property
    def exact(self) -> bool:
        """Whether it makes what the scenario's first way makes, to rounding."""
        return self.method != "fast" and self.text_hold in (None, *EXACT_HOLDS)


@dataclass(frozen=True)
class Scenario:
    """Some work on a picture of `size` (height, width), in each of its ways.

    weights: shapes of the random pipeline, None: the pocket model. window: the compression's. gpu: for a GPU; on a CPU
    it takes an hour or says nothing new, and runs where it is asked for by name.
    """

    name: str
    work: Work
    dtype: str
    ways: tuple[Way, ...]
    weights: InferenceScenario | None
    size: tuple[int, int] = (0, 0)
    window: tuple[int, int] | None = None
    gpu: bool = False


_WHOLE = Way("whole")
_XL_1024 = InferenceScenario("xl-1024", "picture", xl_shapes(1024), 1024)
_XL_UHD = InferenceScenario("xl-4k", "picture", xl_shapes(2880), 2880)
_SHORT_TEXT = replace(
    _XL_UHD, shapes=replace(_XL_UHD.shapes, text_encoder=replace(_XL_UHD.shapes.text_encoder, num_layers=1))
)
_TINY = InferenceScenario("tiny", "picture", TINY_SHAPES, 64)


def _decode(name: str, dtype: str, size: tuple[int, int], *ways: Way) -> Scenario:
    return Scenario(name, "decode", dtype, ways, replace(_XL_1024, name=name, work="decode"), size)


SCENARIOS = (
    Scenario(
        "t5-xxl",
        "text",
        "bfloat16",
        (
            Way("resident", text_hold="resident"),
            Way("streamed", text_hold="streamed"),
            Way("int8", text_hold="int8"),
            Way("nf4", text_hold="nf4"),
        ),
        replace(_XL_1024, name="t5-xxl", work="text"),
    ),
    _decode(
        "decode-1024",
        "float32",
        (1024, 1024),
        _WHOLE,
        Way("exact strips, 1 GiB", method="exact", limit_bytes=GIB),
        Way("blended tiles, 1 GiB", method="fast", limit_bytes=GIB),
    ),
    _decode(
        "decode-4k",
        "float32",
        UHD,
        Way("exact strips, 4 GiB", method="exact", limit_bytes=4 * GIB),
        Way("lower exact strips, 4 GiB", method="exact", limit_bytes=4 * GIB, strip_bytes=24 * MIB),
        Way("blended tiles, 4 GiB", method="fast", limit_bytes=4 * GIB),
    ),
    Scenario(
        "picture-1024",
        "picture",
        "bfloat16",
        (_WHOLE, Way("limit 3 GiB", limit_bytes=3 * GIB), Way("limit 2 GiB", limit_bytes=2 * GIB)),
        _XL_1024,
        (1024, 1024),
    ),
    Scenario(
        "picture-4k",
        "picture",
        "bfloat16",
        (Way("limit 4 GiB", limit_bytes=4 * GIB),),
        _SHORT_TEXT,
        UHD,
        window=(2, 2),
        gpu=True,
    ),
    # The two figures that a GPU has to keep, in one process each: ten minutes hold them, beside other suites.
    Scenario(
        "staged-1024",
        "picture",
        "bfloat16",
        (Way("limit 3 GiB", limit_bytes=3 * GIB),),
        _XL_1024,
        (1024, 1024),
        gpu=True,
    ),
    Scenario(
        "pocket-1024",
        "picture",
        "float32",
        (_WHOLE, Way("limit 1 GiB", limit_bytes=GIB), Way("limit 700 MiB", limit_bytes=700 * MIB)),
        None,
        (1024, 1024),
        window=(2, 2),
    ),
)
TINY = (
    Scenario(
        "tiny-text",
        "text",
        "float32",
        (Way("resident", text_hold="resident"), Way("streamed", text_hold="streamed")),
        replace(_TINY, work="text"),
    ),
    Scenario(
        "tiny-decode",
        "decode",
        "float32",
        (_WHOLE, Way("exact strips, 64 MiB", method="exact", limit_bytes=64 * MIB)),
        replace(_TINY, work="decode"),
        (64, 96),
    ),
    Scenario(
        "tiny-picture",
        "picture",
        "float32",
        (_WHOLE, Way("limit 8 GiB", limit_bytes=8 * GIB)),
        _TINY,
        (64, 64),
    ),
)
"""For the tests: seconds, and their figures mean nothing."""


def choose(names: list[str], device: str) -> list[Scenario]:
    """Those named, or all but the tiny ones and, on a CPU, a GPU's. Raises InvalidInput for an unknown name."""
    if not names:
        return [scenario for scenario in SCENARIOS if device != "cpu" or not scenario.gpu]
    return named((*SCENARIOS, *TINY), names)
