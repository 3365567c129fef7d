import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from pixart_sigma.reproduction.scale import FAST
from pixart_sigma.reproduction.words import (
    KINDS,
    english_tagger,
    reproduce_words,
    word_statistics,
)


def tag(tokens: Sequence[str]) -> Iterable[tuple[str, str, str]]:
    """Long words are nouns, in the singular."""
    return [(token, token.rstrip("s"), "NN1" if len(token) > 3 else "AT0") for token in tokens]


def test_nouns_are_counted_by_lemma_and_valid_beyond_ten() -> None:
    captions = ["A house, two Houses!"] * 5 + ["the house"] + ["the boats"] * 10
    found = word_statistics(captions, tag)
    # "house" 11 times, "boat" 10 times.
    assert (found.num, found.total_nouns, found.distinct_nouns, found.valid_nouns) == (16, 21, 2, 1)
    assert found.lengths == (4,) * 5 + (2,) * 11
    assert found.average_length == 42 / 16
    assert found.nouns_per_caption == 21 / 16


def test_the_english_tagger_finds_nouns() -> None:
    pytest.importorskip("HanTa")
    found = word_statistics(["Three red balloons stand in front of a small house."], english_tagger())
    assert {"balloon", "house"} <= {
        lemma
        for _, lemma, kind in english_tagger()(["Three", "red", "balloons", "and", "a", "house"])
        if kind.startswith("NN")
    }
    assert found.distinct_nouns == found.total_nouns >= 2
    assert found.lengths == (10,)


def test_the_page_has_our_kinds_beside_the_papers(tmp_path: Path) -> None:
    page = reproduce_words(tmp_path / "out", FAST, tag)
    text = page.read_text("utf-8")
    assert text.count(f" | {FAST.num_captions} | ") == len(KINDS) == 3
    assert "| Internal-α | 14M | LLaVA | 28K/215K | 536M | – | 29.3 |" in text
    plain = json.loads((page.parent / "table1.json").read_text("utf-8"))
    assert sum(plain["dense"]["lengths"].values()) == FAST.num_captions
    assert {path.name for path in page.parent.iterdir()} == {"table1.md", "table1.json", "table1.png"}


def test_dense_captions_are_the_longest_and_name_the_most() -> None:
    from pixart_sigma.world import sample_scene

    scenes = [sample_scene(seed) for seed in range(50)]
    found = {kind: word_statistics([write(scene) for scene in scenes], tag) for kind, write in KINDS.items()}
    lengths = [found[kind].average_length for kind in ("short", "hallucinated", "dense")]
    assert lengths == sorted(lengths)
