"""The metrics that tables show: their names, which way is better, how they are written.

Attributes right: of all that the prompts state, the share that the checker reads so; prompt adherence counts only
prompts of which everything is right. Held-out error: the squared error of the moving average's prediction on scenes
that were not trained on. All models of one seed, resolution and autoencoder are asked the same, noise and all, so that
it tells smaller differences than pictures do.
"""

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
ATTRIBUTES = "attributes right"
HELD_OUT_ERROR = "held-out error"
STEP_SECONDS = "seconds a step"
DENSE_CLIP_SCORE = "CLIP score, dense prompts"
DENSE_ATTRIBUTES = "attributes right, dense prompts"

METRICS = {
    metric.name: metric
    for metric in (
        Metric(FID, True, 4),
        Metric(CMMD, True, 3),
        Metric(CLIP_SCORE, False, 2),
        Metric(ADHERENCE, False, 3),
        Metric(ATTRIBUTES, False, 3),
        Metric(HELD_OUT_ERROR, True, 4),
        Metric(DENSE_CLIP_SCORE, False, 2),
        Metric(DENSE_ATTRIBUTES, False, 3),
        Metric(STEP_SECONDS, True, 4),
    )
}
