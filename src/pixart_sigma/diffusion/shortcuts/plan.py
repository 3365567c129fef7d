"""What sampling computes at each step: guidance, and the sublayers of every block. Knows nothing of tensors.

A sublayer's output is what it makes before gate and residual. Where it is not computed, the one that was made last is
used again.

- FORA (Selvaraju et al. 2024): every sublayer of every block is computed at each N-th step.
- ECAD (Aggarwal et al. 2025): each sublayer of each block has steps of its own, found by a search; FORA is one case.
- T-GATE (Zhang et al. 2024): from some step on cross-attention is no longer computed, nor guidance.
- A limited interval of guidance (Kynkäänniemi et al. 2024).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from pixart_sigma.errors import InvalidInput

Sublayer = Literal["self_attention", "cross_attention", "mlp"]
SUBLAYERS: tuple[Sublayer, ...] = get_args(Sublayer)
"""In the order in which a block computes them."""
Table = tuple[tuple[tuple[bool, ...], ...], ...]
"""By step, block and sublayer: whether it is computed."""
CROSS_ATTENTION = SUBLAYERS.index("cross_attention")


@dataclass(frozen=True)
class ReuseSchedule:
    """For each step, block and sublayer whether it is computed, else its last output is used again.

    name: for people. Raises InvalidInput for rows of different lengths and a first step that leaves something out.
    """

    computed: Table
    name: str = "schedule"

    def __post_init__(self) -> None:
        if not self.computed or not self.computed[0]:
            raise InvalidInput(f"reuse schedule {self.name} is empty; it needs a row for each step and block")
        for step, blocks in enumerate(self.computed):
            if len(blocks) != self.num_blocks or any(len(one) != len(SUBLAYERS) for one in blocks):
                raise InvalidInput(
                    f"reuse schedule {self.name} differs in shape at step {step}; give every step the same blocks, and "
                    f"every block {len(SUBLAYERS)} sublayers"
                )
        if not all(all(block) for block in self.computed[0]):
            raise InvalidInput(
                f"reuse schedule {self.name} leaves something out at its first step, where nothing was made yet; "
                "compute everything there"
            )

    @classmethod
    def every(cls, period: int, num_steps: int, num_blocks: int) -> ReuseSchedule:
        """FORA's: everything at each step whose number, from 0, the period divides; nothing at the others."""
        rows = tuple(((step % period == 0,) * len(SUBLAYERS),) * num_blocks for step in range(num_steps))
        return cls(rows, f"every {period}")

    @property
    def num_steps(self) -> int:
        return len(self.computed)

    @property
    def num_blocks(self) -> int:
        return len(self.computed[0])

    @property
    def digest(self) -> str:
        """Of what is computed, whatever the file or its format: 12 hexadecimal digits."""
        bits = ";".join(
            ",".join("".join("01"[one] for one in block) for block in step) for step in self.computed
        )
        return hashlib.sha256(bits.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class StepPlan:
    """What is computed at each step.

    guided: whether a step is guided. computed: the sublayers' table, None for all of them at all steps.
    frozen_after: so many steps compute cross-attention at all; at the last of them what the two branches of guidance
    made is averaged, for the steps that follow. None: all do.
    """

    guided: tuple[bool, ...]
    computed: Table | None = None
    frozen_after: int | None = None

    def computes(self, step: int, block: int, sublayer: int) -> bool:
        """Whether a sublayer, numbered as in SUBLAYERS, is computed at a step."""
        return self.computed is None or self.computed[step][block][sublayer]

    def keeps(self, step: int, block: int, sublayer: int) -> bool:
        """Whether what it made or used at a step is used again at the next."""
        return step + 1 < len(self.guided) and not self.computes(step + 1, block, sublayer)

    @property
    def most_kept(self) -> int:
        """The most outputs of a sublayer (one picture, one branch of guidance) that are kept at once."""
        if self.computed is None:
            return 0
        blocks = range(len(self.computed[0]))
        places = [(block, sublayer) for block in blocks for sublayer in range(len(SUBLAYERS))]

        def kept(step: int, place: tuple[int, int]) -> int:
            return (1 + self.guided[step]) * self.keeps(step, *place) if step >= 0 else 0

        # Within a step, blocks that are done have what is kept after it, the others what was kept before.
        return max(
            sum(max(kept(step - 1, place), kept(step, place)) for place in places)
            for step in range(len(self.guided))
        )


def make_plan(
    num_steps: int,
    guided: bool,
    guidance_interval: tuple[float, float] = (0.0, 1.0),
    frozen_after: int | None = None,
    reuse: ReuseSchedule | None = None,
    num_blocks: int = 0,
) -> StepPlan:
    """The parameters of a sampling → its plan.

    guided: whether there is guidance at all. num_blocks: needed where outputs are reused. Where guidance begins after
    the first step everything is computed, since the negative branch has made nothing yet; where cross-attention is
    computed for the last time it is computed in every block, whatever the schedule says.
    Raises InvalidInput for a schedule of other steps or blocks.
    """
    steps = guided_steps(num_steps, guidance_interval, frozen_after) if guided else (False,) * num_steps
    if frozen_after is not None and frozen_after >= num_steps:
        frozen_after = None
    if reuse is None and frozen_after is None:
        return StepPlan(steps)
    if reuse is None:
        reuse = ReuseSchedule.every(1, num_steps, num_blocks)
    if (reuse.num_steps, reuse.num_blocks) != (num_steps, num_blocks):
        raise InvalidInput(
            f"reuse schedule {reuse.name} is for {reuse.num_steps} steps and {reuse.num_blocks} blocks; this is a "
            f"sampling of {num_steps} steps with a model of {num_blocks} blocks: use another schedule, or a number"
        )
    table = [list(blocks) for blocks in reuse.computed]
    if True in steps:
        first = steps.index(True)
        table[first] = [(True,) * len(SUBLAYERS)] * num_blocks
    if frozen_after is not None:
        for step in range(frozen_after - 1, num_steps):
            table[step] = [(attention, step < frozen_after, mlp) for attention, _, mlp in table[step]]
    return StepPlan(steps, tuple(tuple(blocks) for blocks in table), frozen_after)


def guided_steps(
    num_steps: int, interval: tuple[float, float], frozen_after: int | None = None
) -> tuple[bool, ...]:
    """Which steps are guided: those whose middle lies in the interval, but none from step frozen_after on.

    The interval is in fractions of the sampling, from 0, the noisiest, to 1: what users of diffusers' guiders know as
    start and stop. The paper's own unit, the noise level, means another part of the work with every scheduler and
    noise schedule.
    """
    low, high = interval
    last = num_steps if frozen_after is None else frozen_after
    return tuple(low <= (step + 0.5) / num_steps < high and step < last for step in range(num_steps))


def check_interval(interval: Sequence[float]) -> None:
    """Raises InvalidInput unless these are two fractions, the lower one first."""
    if len(interval) != 2 or not all(map(math.isfinite, interval)) or not 0 <= interval[0] < interval[1] <= 1:
        raise InvalidInput(
            f"guidance interval {':'.join(f'{one:g}' for one in interval)} is not LOW:HIGH with 0 <= LOW < HIGH <= 1, "
            "fractions of the sampling; write for example 0.1:0.8"
        )
