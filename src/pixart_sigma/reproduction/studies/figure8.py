"""Figure 8: how fast a model gets used to (a) another autoencoder, (b) a higher resolution, (c) compression."""

from __future__ import annotations

from pixart_sigma.reproduction.metric import ADHERENCE, ATTRIBUTES, CLIP_SCORE, CMMD, FID, HELD_OUT_ERROR
from pixart_sigma.reproduction.paper import FIGURE_8
from pixart_sigma.reproduction.scale import Scale
from pixart_sigma.reproduction.studies.stages import (
    alone,
    base,
    compressed,
    raised,
    swapped,
    uninterpolated,
)
from pixart_sigma.reproduction.study import Cell, Claim, Study

_SWAPPED = "(a) autoencoder swapped"
_SCRATCH = "(a) from scratch"
_INTERPOLATED = "(b, c) positions interpolated, not compressed"
_CONTINUED = "(b) positions not interpolated"
_ALONE = "(b) from scratch"
_AVERAGE = "(c) average, norm"
_RANDOM = "(c) random, norm"
_AVERAGE_ALONE = "(c) average, no norm"
_RANDOM_ALONE = "(c) random, no norm"


def figure8(scale: Scale) -> Study:
    """Curves over the scale's `curve`; from scratch at the low resolution, on to the base's end."""
    curve = scale.curve
    first, *_, last = curve
    return Study(
        "fig8",
        "How many steps does a trained model need to get used to another autoencoder, resolution, or compression?",
        (
            Cell(_SWAPPED, swapped(scale), curve),
            Cell(_SCRATCH, base(scale), (*curve, scale.base)),
            Cell(_INTERPOLATED, raised(scale), curve),
            Cell(_CONTINUED, uninterpolated(scale), curve),
            Cell(_ALONE, alone(scale), curve),
            Cell(_AVERAGE, compressed(scale), curve),
            Cell(_RANDOM, compressed(scale, init="random"), curve),
            Cell(_AVERAGE_ALONE, compressed(scale, norm=False), curve),
            Cell(_RANDOM_ALONE, compressed(scale, init="random", norm=False), curve),
        ),
        (
            *(Claim(_SWAPPED, _SCRATCH, FID, at, ours=True) for at in curve),
            # The last of each: few steps after the exchange, many from scratch.
            Claim(_SCRATCH, _SWAPPED, FID, ours=True),
            *(Claim(_INTERPOLATED, _CONTINUED, FID, at) for at in curve),
            *(Claim(_INTERPOLATED, _CONTINUED, HELD_OUT_ERROR, at, ours=True) for at in curve),
            Claim(_INTERPOLATED, _ALONE, FID, first, ours=True),
            *(Claim(_AVERAGE, _RANDOM, FID, at) for at in curve),
            *(Claim(_AVERAGE, _RANDOM, HELD_OUT_ERROR, at, ours=True) for at in curve),
            Claim(_INTERPOLATED, _AVERAGE, FID, last, ours=True),
            Claim(_INTERPOLATED, _AVERAGE, HELD_OUT_ERROR, last, ours=True),
            *(Claim(_AVERAGE_ALONE, _AVERAGE, HELD_OUT_ERROR, at, ours=True) for at in curve),
            *(Claim(_AVERAGE_ALONE, _RANDOM_ALONE, HELD_OUT_ERROR, at, ours=True) for at in curve),
        ),
        FIGURE_8,
        (FID, CMMD, CLIP_SCORE, ADHERENCE, ATTRIBUTES, HELD_OUT_ERROR),
        note="(a) is at the low resolution, (b) and (c) at the middle one; held-out errors are comparable within one "
        "resolution only. From scratch the rate is still warming up during the first 50 steps. The released "
        "compression has a LayerNorm after its convolution, which an average start does not pass unchanged: hence the "
        "cells without it.",
    )
