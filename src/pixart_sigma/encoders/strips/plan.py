"""How the layers of an autoencoder share a limit on memory: a pure function of shapes.

Legend: C channels, H, W the pixels of an activation at its own resolution. Memory is in bytes, above the weights.
Knows neither tensors nor files.

What is counted, for each step: the planes that are in memory while it runs, and what a strip of `rows` rows needs
on top. Strips are full-width, so that no convolution is computed twice: two neighbours share the rows that both
read, which the next strip takes over from the one before.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pixart_sigma.errors import InvalidInput

MIB = 2**20

STRIP_BYTES = 128 * MIB
"""What the rows of a strip beyond its first may take, where the limit leaves more. Taller strips save no work, only
calls.
"""

CHUNK_PIXELS = 2048
"""Pixels whose normalisation or statistics are computed at once, in fp32: 1 MiB at 128 channels."""

FP32_BYTES = 4

Kind = Literal["convolve", "upsample", "downsample", "attend"]


@dataclass(frozen=True)
class Step:
    """The shapes of one layer: it reads a plane (in_height, in_width, in_channels) and gives (height, width,
    channels).

    `attend` is in place. A step with `added_channels`, the second convolution of a residual block, adds the plane
    that the block began with, through a 1 × 1 convolution (`has_shortcut`) where the channels differ; it is in place
    too. `keeps_input` holds that plane back. The last step's rows go to the caller, and not into a plane.
    """

    name: str
    kind: Kind
    in_channels: int
    in_height: int
    in_width: int
    channels: int
    height: int
    width: int
    added_channels: int = 0
    has_shortcut: bool = False
    keeps_input: bool = False
    is_last: bool = False

    @property
    def makes_plane(self) -> bool:
        """Whether the step writes to a plane of its own."""
        return not (self.is_last or self.kind == "attend" or self.added_channels)

    @property
    def least_rows(self) -> int:
        """The lowest strip; the heights of all but the last are multiples of it."""
        return 2 if self.kind == "upsample" else 1

    @property
    def num_values(self) -> int:
        """What the step gives: H·W·C."""
        return self.height * self.width * self.channels

    @property
    def multiply_adds(self) -> int:
        """Of all strips together."""
        pixels = self.height * self.width
        if self.kind == "attend":
            return pixels * (4 * self.channels**2 + 2 * pixels * self.channels)
        shortcut = self.added_channels if self.has_shortcut else 0
        # Of the nine places that an enlarged one sees, at most four differ.
        places = 4 if self.kind == "upsample" else 9
        return pixels * self.channels * (places * self.in_channels + shortcut)

    def rows_read(self, first: int, last: int) -> tuple[int, int]:
        """Rows [first, last) of what the step gives, from a multiple of `least_rows` on → the rows that it reads, of
        which those beyond the border are zero.
        """
        match self.kind:
            case "convolve":
                return first - 1, last + 1
            case "upsample":
                return first // 2 - 1, -(-last // 2) + 1
            case "downsample":
                return 2 * first, 2 * last + 1
            case "attend":
                return first, last

    def most_rows_read(self, rows: int) -> int:
        """How many rows a strip of `rows` rows reads at most."""
        match self.kind:
            case "convolve":
                return rows + 2
            case "upsample":
                return -(-rows // 2) + 2
            case "downsample":
                return 2 * rows + 1
            case "attend":
                return rows


@dataclass(frozen=True)
class StepPlan:
    """How one step runs."""

    rows: int
    """The height of its strips."""
    spills: bool
    """Whether the plane that it makes goes to a file."""
    num_bytes: int
    """Memory while it runs: planes and workspace."""


@dataclass(frozen=True)
class Plan:
    """How all steps run."""

    steps: tuple[StepPlan, ...]
    peak_bytes: int
    """Predicted memory above the weights."""
    spilled_bytes: int
    """Room needed for temporary files."""


@dataclass(frozen=True)
class Circumstances:
    """What a plan depends on beside the layers and the limit.

    result_bytes: what the caller keeps of the last step's rows. unfolds: whether the device convolves by a matrix
    product over unfolded pixels.
    """

    value_bytes: int
    may_spill: bool
    result_bytes: int = 0
    unfolds: bool = False

    def plane(self, step: Step) -> int:
        """The bytes of what a step gives."""
        return step.num_values * self.value_bytes

    def workspace(self, step: Step, rows: int) -> int:
        """What a strip of `rows` rows needs beside the planes."""
        kept = self.result_bytes if step.is_last else 0
        return kept + _workspace(step, rows, self.value_bytes, self.unfolds)


def plan_strips(
    steps: Sequence[Step], limit_bytes: int, given: Circumstances, strip_bytes: int = STRIP_BYTES
) -> Plan:
    """The fastest plan within limit_bytes. Raises InvalidInput if it cannot be met, and names the least that can."""
    if limit_bytes < least_bytes(steps, given):
        raise InvalidInput(_too_small(steps, limit_bytes, given))
    resident = [0] * len(steps)
    spilled = [0] * len(steps)
    spills = [False] * len(steps)
    wanted = [given.workspace(step, step.least_rows) + strip_bytes for step in steps]
    # What a plane in memory must leave for each step that runs while it lives.
    reserves = [
        given.workspace(step, _fit(step, min(allowed, limit_bytes // 2), given))
        for step, allowed in zip(steps, wanted, strict=True)
    ]
    for made_by, lifetime in _lifetimes(steps).items():
        size = given.plane(steps[made_by])
        fits = all(resident[i] + size + reserves[i] <= limit_bytes for i in lifetime)
        spills[made_by] = given.may_spill and not fits
        for i in lifetime:
            (spilled if spills[made_by] else resident)[i] += size
    plans = []
    for i, step in enumerate(steps):
        rows = _fit(step, min(wanted[i], limit_bytes - resident[i]), given)
        plans.append(StepPlan(rows, spills[i], resident[i] + given.workspace(step, rows)))
    return Plan(tuple(plans), max(plan.num_bytes for plan in plans), max(spilled))


def least_bytes(steps: Sequence[Step], given: Circumstances) -> int:
    """The smallest limit that a plan meets: the lowest strips, and all planes in files if they may be."""
    needed = [given.workspace(step, step.least_rows) for step in steps]
    if not given.may_spill:
        for made_by, lifetime in _lifetimes(steps).items():
            for i in lifetime:
                needed[i] += given.plane(steps[made_by])
    return max(needed)


def _lifetimes(steps: Sequence[Step]) -> dict[int, range]:
    """The steps that make planes → the steps during which those planes exist."""
    ends: dict[int, int] = {}
    current: int | None = None
    kept: int | None = None
    for index, step in enumerate(steps):
        for plane in (current, kept):
            if plane is not None:
                ends[plane] = index
        if step.makes_plane:
            kept = current if step.keeps_input else None
            current = index
            ends[index] = index
        elif step.added_channels:
            kept = None
    return {made_by: range(made_by, end + 1) for made_by, end in ends.items()}


def _workspace(step: Step, rows: int, value_bytes: int, unfolds: bool) -> int:
    """What a strip of `rows` rows needs beside the planes, following operations.py."""
    rows = min(rows, step.height)
    pixels = rows * step.width
    given = pixels * step.channels * value_bytes
    read_rows = step.most_rows_read(rows)
    statistics = min(CHUNK_PIXELS, pixels) * step.channels * FP32_BYTES
    if step.kind == "attend":
        keys_and_values = 2 * step.num_values * value_bytes
        return keys_and_values + given + max(2 * given, given + statistics)
    columns = step.in_width + (step.kind == "downsample")
    window = read_rows * columns * step.in_channels * value_bytes
    # oneDNN puts the kernel into its own order at each call, by way of another copy.
    convolving = 2 * 9 * step.in_channels * step.channels * value_bytes
    if unfolds:
        convolving += 9 * pixels * step.in_channels * value_bytes
    if step.kind == "upsample":
        # The rows padded, a part of them, a quarter of the result; the kernels' halves, some of them in fp32.
        convolving = 2 * window + given // 4 + 29 * step.in_channels * step.channels * FP32_BYTES
        if unfolds:
            convolving += 4 * window
    adding = pixels * step.added_channels * value_bytes + (given if step.has_shortcut else 0)
    return window + given + max(convolving, adding, statistics)


def _fit(step: Step, allowed: int, given: Circumstances) -> int:
    """The most rows whose workspace is within `allowed`; at least the step's least."""
    low, high = 1, max(1, step.height // step.least_rows)
    while low < high:
        middle = (low + high + 1) // 2
        if given.workspace(step, middle * step.least_rows) <= allowed:
            low = middle
        else:
            high = middle - 1
    return low * step.least_rows


def _too_small(steps: Sequence[Step], limit_bytes: int, given: Circumstances) -> str:
    size = f"{steps[-1].name.partition('.')[0]} of {steps[-1].width}x{steps[-1].height}"
    rule = f"{_mebibytes(limit_bytes)} are too little for the {size}: the least is "
    with_files = _mebibytes(least_bytes(steps, replace(given, may_spill=True)))
    if given.may_spill:
        return rule + with_files
    return f"{rule}{_mebibytes(least_bytes(steps, given))}, or {with_files} with a folder for temporary files"


def _mebibytes(num_bytes: int) -> str:
    """Rounded up, so that the number that a message names is enough."""
    return f"{-(-num_bytes // MIB)} MiB"
