"""Captions: their lengths, their mix and their mistakes, from scratch at the low resolution."""

from __future__ import annotations

from pixart_sigma.reproduction.metric import (
    ATTRIBUTES,
    CLIP_SCORE,
    CMMD,
    DENSE_ATTRIBUTES,
    DENSE_CLIP_SCORE,
    FID,
)
from pixart_sigma.reproduction.paper import CAPTIONS
from pixart_sigma.reproduction.scale import Scale
from pixart_sigma.reproduction.studies.stages import base, with_captions
from pixart_sigma.reproduction.study import Cell, Claim, Study

_MIXED = "dense 60, short 40; 300 tokens"
_CUT = "dense 60, short 40; 40 tokens"
_SHORT = "short; 300 tokens"
_DENSE = "dense; 300 tokens"
_WRONG = "hallucinated; 300 tokens"


def captions(scale: Scale) -> Study:
    """The base half-way, and what it would be on other captions."""
    end = (scale.half,)
    return Study(
        "captions",
        "Which captions teach a model best to follow short and long prompts?",
        (
            Cell(_MIXED, base(scale), end),
            Cell(_CUT, with_captions(scale, "cut", "scratch.caption_length=40"), end),
            Cell(_SHORT, with_captions(scale, "short", "captions.mix={ short = 1.0 }"), end),
            Cell(_DENSE, with_captions(scale, "dense", "captions.mix={ dense = 1.0 }"), end),
            Cell(_WRONG, with_captions(scale, "wrong", "captions.mix={ hallucinated = 1.0 }"), end),
        ),
        (
            Claim(_MIXED, _CUT, DENSE_CLIP_SCORE, ours=True),
            Claim(_MIXED, _CUT, DENSE_ATTRIBUTES, ours=True),
            Claim(_MIXED, _SHORT, DENSE_CLIP_SCORE, ours=True),
            Claim(_MIXED, _SHORT, DENSE_ATTRIBUTES, ours=True),
            Claim(_MIXED, _DENSE, CLIP_SCORE, ours=True),
            Claim(_MIXED, _DENSE, ATTRIBUTES, ours=True),
            Claim(_DENSE, _WRONG, CLIP_SCORE, ours=True),
            Claim(_DENSE, _WRONG, ATTRIBUTES, ours=True),
            Claim(_DENSE, _WRONG, DENSE_ATTRIBUTES, ours=True),
        ),
        CAPTIONS,
        (FID, CMMD, CLIP_SCORE, ATTRIBUTES, DENSE_CLIP_SCORE, DENSE_ATTRIBUTES),
        prompts=("pocket", "dense"),
        note="No caption of the world has more than 120 tokens, α's limit, so that 40 stand for it: they keep about "
        "half of a dense caption, as 120 do of the paper's. What is trained with 40 is asked with 40. The text encoder "
        "is frozen; it is the pocket model's, which has read hallucinated captions too, but true ones last.",
    )
