"""Table 2: high resolution after low resolution, against high resolution alone."""

from __future__ import annotations

from pixart_sigma.reproduction.metric import ADHERENCE, ATTRIBUTES, CLIP_SCORE, CMMD, FID
from pixart_sigma.reproduction.paper import TABLE_2
from pixart_sigma.reproduction.scale import Scale
from pixart_sigma.reproduction.studies.stages import alone, base, raised
from pixart_sigma.reproduction.study import Cell, Claim, Study

_LOW = "low alone"
_FEW = "low → middle, few steps"
_MANY = "low → middle, many steps"
_AS_MANY = "middle alone, as many steps"
_AS_MUCH = "middle alone, as much computation"


def table2(scale: Scale) -> Study:
    """Few and many steps are the first and the last of the scale's curve."""
    few, *_, many = scale.curve
    return Study(
        "table2",
        "Is a higher resolution learnt within few steps by a model that knows a lower one?",
        (
            Cell(_LOW, base(scale), (scale.base,)),
            Cell(_FEW, raised(scale), (few,)),
            Cell(_MANY, raised(scale), (many,)),
            Cell(_AS_MANY, alone(scale), (many,)),
            Cell(_AS_MUCH, alone(scale), (scale.alone,)),
        ),
        (
            Claim(_FEW, _LOW, FID),
            Claim(_FEW, _LOW, CLIP_SCORE),
            Claim(_MANY, _FEW, FID),
            Claim(_MANY, _FEW, CLIP_SCORE),
            Claim(_MANY, _AS_MANY, FID, ours=True),
            Claim(_MANY, _AS_MUCH, FID, ours=True),
            Claim(_FEW, _LOW, ATTRIBUTES, ours=True),
            Claim(_MANY, _FEW, ATTRIBUTES, ours=True),
            Claim(_MANY, _AS_MANY, ATTRIBUTES, ours=True),
            Claim(_MANY, _AS_MUCH, ATTRIBUTES, ours=True),
        ),
        TABLE_2,
        (FID, CMMD, CLIP_SCORE, ADHERENCE, ATTRIBUTES),
        note="All are compared with drawings at the high resolution, as the paper compares its resolutions with one "
        "set of pictures. As much computation: as the base and the many steps together, captions counted. At the low "
        "resolution the autoencoder, trained on larger pictures, loses much itself.",
    )
