"""Table 1 and Figure 6 for the drawn world: nouns and lengths of its three kinds of captions. No training.

Nouns are found by HanTa, the Hanover Tagger; a concept is a noun's lemma. Knows nothing of pictures.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from pixart_sigma.errors import MissingDependency
from pixart_sigma.reproduction.paper import TABLE_1, Value
from pixart_sigma.reproduction.plot import plot_histogram
from pixart_sigma.reproduction.scale import Scale
from pixart_sigma.reproduction.write import markdown_table, paper_markdown, to_json, write_text
from pixart_sigma.weights.atomic import written_whole
from pixart_sigma.world import (
    Scene,
    dense_caption,
    hallucinated_caption,
    sample_scene,
    short_caption,
)

NAME = "table1"
VALID_BEYOND = 10
"""A noun is valid if it appears more often than this (the paper's Table 1)."""
KINDS: dict[str, Callable[[Scene], str]] = {
    "short": short_caption,
    "hallucinated": hallucinated_caption,
    "dense": dense_caption,
}
"""In the roles of the paper's raw, LLaVA and Share-Captioner captions."""
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_TOKEN = re.compile(rf"{_WORD.pattern}|[^\w\s]")
_NOUN_TAGS = ("NN", "NP")
"""How the tags of common nouns and of names begin in the tag set of the British National Corpus."""

Tagger = Callable[[Sequence[str]], Iterable[tuple[str, str, str]]]
"""The tokens of a caption → (token, lemma, tag) of each."""


@dataclass(frozen=True)
class WordStatistics:
    """Of `num` captions: distinct nouns, those of them that are valid, all nouns, lengths in words."""

    num: int
    valid_nouns: int
    distinct_nouns: int
    total_nouns: int
    lengths: tuple[int, ...]

    @property
    def average_length(self) -> float:
        return fmean(self.lengths)

    @property
    def nouns_per_caption(self) -> float:
        return self.total_nouns / self.num


def word_statistics(captions: Sequence[str], tag: Tagger) -> WordStatistics:
    """Captions, at least one → their statistics."""
    nouns = Counter(
        lemma.lower()
        for caption in captions
        for _, lemma, kind in tag(_TOKEN.findall(caption))
        if kind.startswith(_NOUN_TAGS)
    )
    return WordStatistics(
        len(captions),
        sum(count > VALID_BEYOND for count in nouns.values()),
        len(nouns),
        nouns.total(),
        tuple(len(_WORD.findall(caption)) for caption in captions),
    )


def english_tagger() -> Tagger:
    """HanTa's for English. Raises MissingDependency where it is not installed."""
    try:
        from HanTa.HanoverTagger import HanoverTagger
    except ImportError as error:
        raise MissingDependency(
            "nouns are found with HanTa, which is not installed; install it: pip install pixart-sigma[study]"
        ) from error
    tagger: Tagger = HanoverTagger("morphmodel_en.pgz").tag_sent
    return tagger


def reproduce_words(output: Path, scale: Scale, tag: Tagger) -> Path:
    """Writes `table1.json`, `.md` and `.png` → the page's path. No output is kept from before: it takes a minute."""
    output.mkdir(parents=True, exist_ok=True)
    scenes = [sample_scene(seed) for seed in range(scale.num_captions)]
    found = {kind: word_statistics([write(scene) for scene in scenes], tag) for kind, write in KINDS.items()}
    write_text(output / f"{NAME}.json", to_json({kind: _plain(each) for kind, each in found.items()}))
    with written_whole(output / f"{NAME}.png") as temporary:
        plot_histogram(
            {kind: statistics.lengths for kind, statistics in found.items()}, "words a caption", temporary
        )
    page = output / f"{NAME}.md"
    write_text(page, words_page(found))
    return page


def words_page(found: dict[str, WordStatistics]) -> str:
    """Markdown: our table, the histogram, the paper's table."""
    rows: list[list[Value]] = [
        [
            kind,
            f"{each.num:,}",
            f"{each.valid_nouns}/{each.distinct_nouns}",
            f"{each.total_nouns:,}",
            f"{each.average_length:.1f}",
            f"{each.nouns_per_caption:.1f}",
        ]
        for kind, each in found.items()
    ]
    columns = ("captions", "volume", "VN/DN", "nouns", "average length", "nouns an image")
    parts = [
        f"# {NAME}, fig6",
        "How long are the world's captions, and how many things do they name?",
        f"![Lengths of captions]({NAME}.png)",
        markdown_table(columns, rows),
        "Short, hallucinated and dense captions have the roles of the raw, LLaVA's and Share-Captioner's. The world "
        "has a small vocabulary by design: what can be compared is how the kinds relate, not how many nouns there are.",
        f"## {TABLE_1.source} of the paper",
        paper_markdown(TABLE_1),
    ]
    return "\n\n".join(parts) + "\n"


def _plain(found: WordStatistics) -> dict[str, Any]:
    """As JSON, with a histogram of lengths (words → captions) in the place of all lengths."""
    plain = asdict(found) | {
        "average_length": found.average_length,
        "nouns_per_caption": found.nouns_per_caption,
    }
    return plain | {"lengths": dict(sorted(Counter(found.lengths).items()))}
