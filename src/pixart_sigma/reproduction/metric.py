"""The metrics that tables show: their names, which way is better, how they are written."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """`digits` after the point. A share is in [0, 1]."""

    name: str
    lower_is_better: bool
    digits: int

    @property
    def heading(self) -> str:
        """The name with an arrow that says which way is better."""
        return f"{self.name} {'↓' if self.lower_is_better else '↑'}"


FID = "FID"
CLIP_SCORE = "CLIP score"
CMMD = "CMMD"
ADHERENCE = "prompt adherence"
STEP_SECONDS = "seconds a step"
DENSE_CLIP_SCORE = "CLIP score, dense prompts"
DENSE_ADHERENCE = "prompt adherence, dense prompts"

METRICS = {
    metric.name: metric
    for metric in (
        Metric(FID, True, 2),
        Metric(CMMD, True, 3),
        Metric(CLIP_SCORE, False, 2),
        Metric(ADHERENCE, False, 3),
        Metric(DENSE_CLIP_SCORE, False, 2),
        Metric(DENSE_ADHERENCE, False, 3),
        Metric(STEP_SECONDS, True, 4),
    )
}
