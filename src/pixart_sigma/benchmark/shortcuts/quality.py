"""What pictures are worth: likeness to the exact ones, and what judges of the drawn world say of them.

Knows nothing of shortcuts, nor of how pictures are made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from pixart_sigma.evaluation.features import extractor
from pixart_sigma.evaluation.figures import ADHERENCE, FID, figures, verdicts
from pixart_sigma.evaluation.judges.checker import load_checker
from pixart_sigma.evaluation.metrics.bootstrap import mean_interval
from pixart_sigma.evaluation.metrics.reference import Reference
from pixart_sigma.evaluation.metrics.similarity import psnr, ssim
from pixart_sigma.evaluation.pictures import open_pictures
from pixart_sigma.evaluation.prompts import Prompt
from pixart_sigma.evaluation.reference_set import drawn_reference
from pixart_sigma.evaluation.run import Judges, observe

Quality = dict[str, Any]
"""Figures by name; intervals as dictionaries."""


@dataclass(frozen=True)
class Jury:
    """Who judges pictures of the drawn world, and the drawn ones that FID compares with."""

    judges: Judges
    reference: Reference


def find_jury(
    features: str, folder: Path, size: tuple[int, int], device: torch.device, num_drawn: int
) -> Jury:
    """The package's judges. size: (height, width) of the pictures; the reference is kept in `folder`."""
    found = extractor(features, device)
    reference = drawn_reference(folder, found, *size, num_drawn, _silent)
    return Jury(Judges(found, load_checker(device=device), None), reference)


def likeness(folder: Path, exact_folder: Path, prompts: Sequence[Prompt]) -> Quality:
    """Of the prompts' pictures in one folder to those in the other; the mean over pictures, with its interval.

    PSNR is over those that differ at all, since of others (`equal` is how many) it is infinite; None if there are none.
    """
    ratios, likenesses = [], []
    exact = open_pictures(exact_folder, prompts)
    for found, wanted in zip(open_pictures(folder, prompts), exact, strict=True):
        ratios.append(psnr(found, wanted))
        likenesses.append(ssim(found, wanted))
    finite = [ratio for ratio in ratios if math.isfinite(ratio)]
    return {
        "equal": len(ratios) - len(finite),
        "psnr": asdict(mean_interval(finite)) if finite else None,
        "ssim": asdict(mean_interval(likenesses)),
    }


def judged(folder: Path, prompts: Sequence[Prompt], jury: Jury) -> tuple[Quality, list[float]]:
    """Adherence and FID, and of each picture whether it shows all that its prompt states, as 1 or 0."""
    seen = observe(open_pictures(folder, prompts), prompts, jury.judges, _silent)
    found = {
        (figure.metric, figure.part): figure
        for figure in figures("model", prompts, seen, None, jury.reference)
    }
    adherence = found[ADHERENCE, "all"]
    quality: Quality = {
        "adherence": {"estimate": adherence.value, "low": adherence.low, "high": adherence.high}
    }
    if (FID, "") in found:  # of one picture there is none
        quality["fid"] = found[FID, ""].value
    return quality, [float(all(one.right for one in each)) for each in verdicts(prompts, seen.readings)]


def change(right: Sequence[float], exact_right: Sequence[float]) -> Quality:
    """Of adherence, prompt by prompt, so that prompts that are hard for both do not widen the interval."""
    changes = [one - other for one, other in zip(right, exact_right, strict=True)]
    return {"adherence_change": asdict(mean_interval(changes))}


def _silent(done: int, total: int) -> None:
    """The suite says what it does, not how far it is."""
