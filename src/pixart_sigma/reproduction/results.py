"""A study's values → whether its claims hold, as plain values for files. Knows nothing of how they were measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pixart_sigma.reproduction.metric import METRICS
from pixart_sigma.reproduction.study import Claim, Study
from pixart_sigma.reproduction.verdict import Verdict, judge


@dataclass(frozen=True)
class Cost:
    """Seconds of training, validation included, and samples seen."""

    seconds: float
    samples: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.seconds + other.seconds, self.samples + other.samples)


@dataclass(frozen=True)
class CellResult:
    """`values`: steps → metric → a value a seed. `own` cost of the stage up to the last of the steps, and `whole`, with
    all that it started from; both are sums over the seeds.
    """

    label: str
    values: Mapping[int, Mapping[str, Sequence[float]]]
    own: Cost
    whole: Cost

    def at(self, steps: int | None) -> Mapping[str, Sequence[float]]:
        """Metric → values after so many steps; None: after the last."""
        return self.values[max(self.values) if steps is None else steps]


@dataclass(frozen=True)
class JudgedClaim:
    """A claim and what became of it."""

    claim: Claim
    verdict: Verdict

    @property
    def sentence(self) -> str:
        """What was claimed, whether it holds, and by how much."""
        claim, verdict = self.claim, self.verdict
        when = f" after {claim.at:,} steps" if claim.at is not None else ""
        digits = METRICS[claim.metric].digits
        figures = f"difference {verdict.difference:+.{digits}f}, noise up to {verdict.noise:.{digits}f}"
        said = "asked by us" if claim.ours else "the paper's"
        return (
            f"“{claim.better}” before “{claim.worse}” by {claim.metric}{when} ({said}): the ordering "
            f"{verdict.outcome} ({figures})."
        )


def judge_claims(study: Study, results: Mapping[str, CellResult]) -> list[JudgedClaim]:
    """The study's claims in their order. Raises InvalidInput for fewer than two seeds."""

    def values(label: str, claim: Claim) -> Sequence[float]:
        return results[label].at(claim.at)[claim.metric]

    return [
        JudgedClaim(
            claim,
            judge(
                values(claim.better, claim),
                values(claim.worse, claim),
                [values(cell.label, claim) for cell in study.peers(claim)],
                METRICS[claim.metric].lower_is_better,
            ),
        )
        for claim in study.claims
    ]
