"""What judges saw on a set of pictures → figures with their intervals. Knows nothing of files or of the judges.

Legend: N pictures, D features, E embedding's width.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from pixart_sigma.evaluation.judges.checker import Reading
from pixart_sigma.evaluation.metrics.adherence import ATTRIBUTES, Verdict, judge
from pixart_sigma.evaluation.metrics.bootstrap import Interval, bootstrap_interval, mean_interval
from pixart_sigma.evaluation.metrics.clip_score import clip_scores
from pixart_sigma.evaluation.metrics.cmmd import cmmd
from pixart_sigma.evaluation.metrics.fid import frechet_distance, gaussian_statistics
from pixart_sigma.evaluation.metrics.ocr import character_error_rate, compare, word_accuracy, word_f1
from pixart_sigma.evaluation.metrics.reference import Reference
from pixart_sigma.evaluation.prompts import Prompt

ADHERENCE = "prompt adherence"
ATTRIBUTE = "attributes read right"
ATTRIBUTE_SEEN = "attributes of things that are seen"
CLIP_SCORE = "CLIP score"
FID = "FID"
PATCH_FID = "patch FID"
CMMD = "CMMD"
LETTERING = "lettering"
SECONDS = "seconds per picture"


@dataclass(frozen=True)
class Figure:
    """A metric of a set of pictures ("model", "ceiling", "truth" or "floor"); `num` are what it was measured on.

    `part` is the group of prompts, the attribute or the kind of figure; "" for a metric that has one figure. `low` and
    `high` are the 95 % interval, None where there is none. Shares are in [0, 1].
    """

    metric: str
    part: str
    pictures: str
    value: float
    num: int
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Observations:
    """Of N pictures of one size (height, width), in the order of their prompts: features (N, D); those of a patch of
    each, or None if the pictures are no larger; embeddings (N, E), or None if the extractor embeds no texts;
    readings, empty if no prompt has a scene; and of the prompts with lettering, by id, all that was read.
    """

    size: tuple[int, int]
    features: Tensor
    patch_features: Tensor | None
    embeddings: Tensor | None
    readings: Sequence[Reading]
    letterings: Mapping[str, str]


def verdicts(prompts: Sequence[Prompt], readings: Sequence[Reading]) -> list[list[Verdict]]:
    """A list for each prompt with a scene; none of any without readings."""
    return [
        judge(prompt.scene, prompt.stated, reading)
        for prompt, reading in zip(prompts, readings, strict=False)
        if prompt.scene is not None
    ]


def figures(
    pictures: str,
    prompts: Sequence[Prompt],
    seen: Observations,
    texts: Tensor | None,
    reference: Reference | None,
) -> list[Figure]:
    """All figures of one set of pictures. texts: (N, E) embeddings of the prompts, or None."""
    return [
        *_adherence(pictures, prompts, seen.readings),
        *_attributes(pictures, prompts, seen.readings),
        *_clip_score(pictures, seen.embeddings, texts),
        *_distances(pictures, seen, reference),
        *_letterings(pictures, prompts, seen.letterings),
    ]


def floor_figures(prompts: Sequence[Prompt], seen: Observations, texts: Tensor | None) -> list[Figure]:
    """Adherence and CLIP score of pictures beside other prompts than their own; none of a single picture."""
    if len(prompts) < 2:
        return []
    order = list(range(len(prompts)))
    random.Random(0).shuffle(order)
    other = dict(zip(order, order[1:] + order[:1], strict=True))  # one cycle, so that none keeps its own
    shuffled = [prompts[other[index]] for index in range(len(prompts))]
    wrong_texts = texts if texts is None else texts[[other[index] for index in range(len(prompts))]]
    return [
        *_adherence("floor", shuffled, seen.readings),
        *_attributes("floor", shuffled, seen.readings),
        *_clip_score("floor", seen.embeddings, wrong_texts),
    ]


def _adherence(pictures: str, prompts: Sequence[Prompt], readings: Sequence[Reading]) -> list[Figure]:
    right = [float(all(one.right for one in each)) for each in verdicts(prompts, readings)]
    groups = {"all": right} if right else {}
    for prompt, value in zip(prompts, right, strict=False):
        groups.setdefault(prompt.group, []).append(value)
    return [
        _figure(ADHERENCE, part, pictures, mean_interval(values), len(values))
        for part, values in groups.items()
    ]


def _attributes(pictures: str, prompts: Sequence[Prompt], readings: Sequence[Reading]) -> list[Figure]:
    """Of all that is stated, and of what is stated of things that are seen."""
    of_prompts = verdicts(prompts, readings)
    of_seen = [
        [one for one in each if one.kind is not None and one.read is not None and one.attribute != "kind"]
        for each in of_prompts
    ]
    return [*_shares(ATTRIBUTE, pictures, of_prompts), *_shares(ATTRIBUTE_SEEN, pictures, of_seen)]


def _shares(metric: str, pictures: str, of_prompts: Sequence[Sequence[Verdict]]) -> list[Figure]:
    found = []
    for name in ATTRIBUTES:
        each = [[one.right for one in verdict if one.attribute == name] for verdict in of_prompts]
        # By picture, since what is read on one is right or wrong together.
        asked = [right for right in each if right]
        if asked:
            interval = bootstrap_interval(asked, _share)
            found.append(_figure(metric, name, pictures, interval, sum(map(len, asked))))
    return found


def _share(answers: Sequence[Sequence[bool]]) -> float:
    return sum(map(sum, answers)) / sum(map(len, answers))


def _clip_score(pictures: str, embeddings: Tensor | None, texts: Tensor | None) -> list[Figure]:
    if embeddings is None or texts is None:
        return []
    scores: list[float] = clip_scores(embeddings, texts).tolist()
    return [_figure(CLIP_SCORE, "", pictures, mean_interval(scores), len(scores))]


def _distances(pictures: str, seen: Observations, reference: Reference | None) -> list[Figure]:
    num = len(seen.features)
    if reference is None or num < 2:
        return []
    distance = frechet_distance(gaussian_statistics([seen.features]), reference.statistics)
    found = [Figure(FID, "", pictures, distance, num)]
    # Of pictures of another size a patch shows another part, and finer or coarser.
    if seen.patch_features is not None and reference.patches is not None and seen.size == reference.size:
        distance = frechet_distance(gaussian_statistics([seen.patch_features]), reference.patches)
        found.append(Figure(PATCH_FID, "", pictures, distance, num))
    if seen.embeddings is not None and reference.embeddings is not None:
        found.append(Figure(CMMD, "", pictures, cmmd(seen.embeddings, reference.embeddings), num))
    return found


def _letterings(pictures: str, prompts: Sequence[Prompt], read: Mapping[str, str]) -> list[Figure]:
    comparisons = [
        compare(prompt.lettering, read[prompt.id])
        for prompt in prompts
        if prompt.lettering is not None and prompt.id in read
    ]
    statistics = {
        "word accuracy": word_accuracy,
        "word F1": word_f1,
        "character error rate": character_error_rate,
    }
    return [
        _figure(LETTERING, part, pictures, bootstrap_interval(comparisons, statistic), len(comparisons))
        for part, statistic in statistics.items()
        if comparisons
    ]


def _figure(metric: str, part: str, pictures: str, interval: Interval, num: int) -> Figure:
    return Figure(metric, part, pictures, interval.estimate, num, interval.low, interval.high)
