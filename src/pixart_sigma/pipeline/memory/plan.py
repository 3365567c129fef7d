"""A limit on memory → the fastest ways of each stage that keep within it. Arithmetic alone: no tensors, no files.

Stages are text, denoise and decode. The order in which ways are tried, fastest first:

1. every part in memory from the beginning, nothing divided;
2. stage by stage: a part is loaded, used and let go. Then each stage for itself takes the first way that fits:
   text: the encoder in memory | streamed from its files;
   denoise: all pictures at once | one after the other | also the two branches of guidance one after the other; then,
   on a GPU, the same with the transformer's weights in host memory, block by block on the device;
   decode: whole | in exact strips | in exact strips with temporary files.

All of them make the same pictures, to rounding. What does not (a quantised text encoder, blended tiles) is used only
if it was asked for, and then instead of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pixart_sigma.encoders.text_holds import TextHold
from pixart_sigma.encoders.tiling import Tiling, TilingMethod
from pixart_sigma.errors import InvalidInput
from pixart_sigma.pipeline.memory.limit import as_option, in_words

Stage = Literal["text", "denoise", "decode"]
KEEPING = 2.2
"""How much more tensors take where freed memory is kept, at most: see `pixart_sigma.allocator`."""
_SLACK_BYTES = 16 * 2**20
"""By which the same process may differ from one start to the next."""
FROM_CACHE = "from the prompt cache"
EXACT_HOLDS: tuple[TextHold, ...] = ("resident", "streamed")


@dataclass(frozen=True)
class PartBytes:
    """A part's weights: what they take in memory, and what of them is used where the file is mapped."""

    loaded: int
    mapped: int = 0


@dataclass(frozen=True)
class Needs:
    """What a request takes of a device, in bytes.

    process: before anything is loaded. text: the text encoder, by how it is held; text_working: while it encodes.
    visiting: the transformer if its blocks visit the device one by one, None where that saves nothing.
    denoise_working: pictures at once, and whether branches are together → while denoising. decode_working: a tiling →
    while decoding, which raises InvalidInput for a limit that is too small for it; decode_beside: what that limit is
    not about. least_decode: a method, and whether it may spill → the least limit. find_spill: where temporary files
    would go; raises InvalidInput if nowhere. text_known: a cache has all prompts, and no text encoder will be loaded.
    one_tile: the picture is no larger than a blended tile can be, and then decoded whole. int8: the transformer's
    blocks are in 8 bits.
    """

    process: int
    num_pictures: int
    guided: bool
    text: Mapping[TextHold, PartBytes]
    text_working: int
    transformer: PartBytes
    visiting: PartBytes | None
    denoise_working: Callable[[int, bool], int]
    autoencoder: PartBytes
    decode_working: Callable[[Tiling | None], int]
    decode_beside: int
    least_decode: Callable[[TilingMethod, bool], int]
    find_spill: Callable[[], Path]
    text_known: bool = False
    one_tile: bool = False
    int8: bool = False


@dataclass(frozen=True)
class Choices:
    """What was decided; None leaves it to the plan. staged: in any case, however much memory there is. limited: by the
    user, and not by what is free. remedies: flags that would make each stage smaller.
    """

    text_hold: TextHold | None = None
    tiling: TilingMethod | None = None
    staged: bool = False
    limited: bool = True
    remedies: Mapping[Stage, Sequence[str]] | None = None


@dataclass(frozen=True)
class StagePlan:
    """A stage: how it runs, in words, what it takes with everything that is in memory meanwhile, what is mapped."""

    stage: Stage
    how: str
    num_bytes: int
    mapped_bytes: int


@dataclass(frozen=True)
class MemoryPlan:
    """How a request is carried out.

    staged: parts are loaded when they are needed, and let go. pictures_at_once: while denoising. blocks_visit: the
    transformer's weights are in host memory. tiling: the autoencoder's. process_bytes: what was taken before.
    """

    stages: tuple[StagePlan, StagePlan, StagePlan]
    staged: bool
    text_hold: TextHold
    pictures_at_once: int
    branches_together: bool
    blocks_visit: bool
    tiling: Tiling | None
    process_bytes: int
    limit_bytes: int

    @property
    def peak_bytes(self) -> int:
        """The largest of the stages'."""
        return max(stage.num_bytes for stage in self.stages)

    @property
    def may_keep(self) -> bool:
        """Whether the limit allows to keep what is freed for the next tensor, which is quicker."""
        return self.process_bytes + KEEPING * (self.peak_bytes - self.process_bytes) <= self.limit_bytes


@dataclass(frozen=True)
class _Denoising:
    pictures: int
    together: bool
    visiting: bool = False

    def __str__(self) -> str:
        how = "one picture after the other" if self.pictures == 1 else f"{self.pictures} pictures at once"
        return how if self.together else f"{how}, the branches of guidance one after the other"


def make_plan(needs: Needs, limit_bytes: int, choices: Choices) -> MemoryPlan:
    """Needs, a limit and what the user decided → the plan. Raises InvalidInput, with the least limit, if none fits."""
    holds = EXACT_HOLDS if choices.text_hold is None else (choices.text_hold,)
    if needs.text_known and choices.text_hold is None:
        holds = ("streamed",)  # the least, should a prompt be lost from the cache before it is read
    denoisings = _denoisings(needs)
    whole = None
    if choices.tiling is not None and not (choices.tiling == "fast" and needs.one_tile):
        whole = Tiling(choices.tiling)
    everything = needs.process + sum(
        part.loaded for part in (needs.text[holds[0]], needs.transformer, needs.autoencoder)
    )
    workings = (
        needs.text_working,
        needs.denoise_working(denoisings[0].pictures, denoisings[0].together),
        needs.decode_working(whole) + needs.decode_beside,
    )
    if everything + max(workings) <= limit_bytes and not choices.staged:
        return _resident(needs, limit_bytes, holds[0], denoisings[0], whole, everything, workings)
    return _staged(needs, limit_bytes, choices, holds, denoisings, whole)


def _denoisings(needs: Needs) -> list[_Denoising]:
    ways = [_Denoising(needs.num_pictures, True)]
    if needs.num_pictures > 1:
        ways.append(_Denoising(1, True))
    if needs.guided:
        ways.append(_Denoising(1, False))
    if needs.visiting is not None:
        ways += [replace(way, visiting=True) for way in ways]
    return ways


def _resident(
    needs: Needs,
    limit_bytes: int,
    hold: TextHold,
    denoising: _Denoising,
    tiling: Tiling | None,
    everything: int,
    workings: tuple[int, int, int],
) -> MemoryPlan:
    mapped = sum(part.mapped for part in (needs.text[hold], needs.transformer, needs.autoencoder))
    hows = (_encoded(needs, hold), _denoised(needs, denoising), _tiled(tiling))
    return MemoryPlan(
        (
            StagePlan("text", hows[0], everything + workings[0], mapped),
            StagePlan("denoise", hows[1], everything + workings[1], mapped),
            StagePlan("decode", hows[2], everything + workings[2], mapped),
        ),
        staged=False,
        text_hold=hold,
        pictures_at_once=denoising.pictures,
        branches_together=denoising.together,
        blocks_visit=False,
        tiling=tiling,
        process_bytes=needs.process,
        limit_bytes=limit_bytes,
    )


def _staged(
    needs: Needs,
    limit_bytes: int,
    choices: Choices,
    holds: Sequence[TextHold],
    denoisings: Sequence[_Denoising],
    whole: Tiling | None,
) -> MemoryPlan:
    texts = {hold: needs.process + needs.text[hold].loaded + needs.text_working for hold in holds}
    denoised = {
        way: needs.process
        + (needs.visiting if way.visiting and needs.visiting else needs.transformer).loaded
        + needs.denoise_working(way.pictures, way.together)
        for way in denoisings
    }
    autoencoder = needs.process + needs.autoencoder.loaded + needs.decode_beside
    decoded: dict[Tiling | None, int] = {whole: autoencoder + needs.decode_working(whole)}
    if decoded[whole] > limit_bytes:
        divided = _tiling_within(needs, choices.tiling or "exact", limit_bytes - autoencoder)
        decoded[divided] = autoencoder + needs.decode_working(divided)
    least: dict[Stage, int] = {
        "text": min(texts.values()),
        "denoise": min(denoised.values()),
        "decode": min(decoded.values()),
    }
    if max(least.values()) > limit_bytes:
        faster = (
            choices.tiling != "fast" and needs.least_decode("fast", False) + autoencoder < least["decode"]
        )
        raise InvalidInput(_too_small(least, limit_bytes, choices, ("--vae-tiling fast",) if faster else ()))
    hold = next(hold for hold in texts if texts[hold] <= limit_bytes)
    way = next(way for way in denoised if denoised[way] <= limit_bytes)
    tiling = next(tiling for tiling in decoded if decoded[tiling] <= limit_bytes)
    return MemoryPlan(
        (
            StagePlan("text", _encoded(needs, hold), texts[hold], needs.text[hold].mapped),
            StagePlan("denoise", _denoised(needs, way), denoised[way], needs.transformer.mapped),
            StagePlan("decode", _tiled(tiling), decoded[tiling], needs.autoencoder.mapped),
        ),
        staged=True,
        text_hold=hold,
        pictures_at_once=way.pictures,
        branches_together=way.together,
        blocks_visit=way.visiting,
        tiling=tiling,
        process_bytes=needs.process,
        limit_bytes=limit_bytes,
    )


def _tiling_within(needs: Needs, method: TilingMethod, room: int) -> Tiling:
    """A tiling that keeps within the room, or to the least that it can if that is more."""
    in_memory = needs.least_decode(method, False)
    if in_memory <= room or method == "fast":
        return Tiling(method, max(room, in_memory))
    try:
        spill = needs.find_spill()
    except InvalidInput:
        return Tiling(method, in_memory)
    return Tiling(method, max(room, needs.least_decode(method, True)), spill)


def _encoded(needs: Needs, hold: TextHold) -> str:
    if needs.text_known:
        return FROM_CACHE
    return "streamed from its files" if hold == "streamed" else hold


def _denoised(needs: Needs, way: _Denoising) -> str:
    if needs.num_pictures > 1:
        how = str(way)
    elif not needs.guided:
        how = "no guidance"
    else:
        how = f"the branches of guidance {'together' if way.together else 'one after the other'}"
    how += "; blocks in 8 bits" if needs.int8 else ""
    return f"{how}; blocks visit the device" if way.visiting else how


def _tiled(tiling: Tiling | None) -> str:
    if tiling is None:
        return "whole"
    if tiling.method == "fast":
        return "blended tiles (not exact)"
    room = "" if tiling.limit_bytes is None else f" within {in_words(tiling.limit_bytes)}"
    return f"exact strips{room}" + (f", temporary files in {tiling.spill}" if tiling.spill else "")


def _too_small(
    least: Mapping[Stage, int], limit_bytes: int, choices: Choices, for_decode: Sequence[str]
) -> str:
    needed = max(least.values())
    largest = [stage for stage in least if least[stage] > limit_bytes]
    flags = {stage: [*(choices.remedies or {}).get(stage, ())] for stage in largest}
    flags.get("decode", []).extend(for_decode)
    remedies = list(dict.fromkeys(flag for stage in largest for flag in flags[stage]))
    stage = max(least, key=lambda stage: least[stage])
    if not choices.limited:
        ends = " or ".join(("close other programs", *remedies))
        return (
            f"{in_words(limit_bytes)} of memory are free, and stage {stage} needs {in_words(needed)}; {ends}"
        )
    lower = f"; what would lower it: {', '.join(remedies)}" if remedies else ""
    return (
        f"memory limit {in_words(limit_bytes)} is too little, the least is {in_words(needed)}, for stage {stage}: "
        f"give --memory-limit {as_option(needed + _SLACK_BYTES)}{lower}"
    )
