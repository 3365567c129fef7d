from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from pixart_sigma.reproduction.metric import CLIP_SCORE, CMMD, FID
from pixart_sigma.reproduction.paper import PaperTable
from pixart_sigma.reproduction.results import CellResult, Cost, judge_claims
from pixart_sigma.reproduction.strip import Strip
from pixart_sigma.reproduction.study import Cell, Claim, Stage, Study
from pixart_sigma.reproduction.write import markdown_table, study_page, write_study

STAGE = Stage("base", "study-base", (10, 20))
STUDY = Study(
    "table9",
    "Is good better than bad?",
    (Cell("good", STAGE, (10, 20)), Cell("bad/worse", STAGE, (10, 20))),
    (
        Claim("good", "bad/worse", FID),
        Claim("good", "bad/worse", FID, at=10),
        Claim("good", "bad/worse", CLIP_SCORE, ours=True),
    ),
    PaperTable("Table 9", ("cell", "FID ↓"), (("good", 1.0), ("bad", None)), "Good is better."),
    (FID, CLIP_SCORE),
    note="Bear this in mind.",
)


def cell(label: str, early: float, late: float, score: float) -> CellResult:
    values = {
        20: {FID: [late, late + 1], CLIP_SCORE: [score, score + 0.5], CMMD: [0.0, 0.0]},
        10: {FID: [early, 2 * early - 19], CLIP_SCORE: [score, score], CMMD: [0.0, 0.0]},
    }
    return CellResult(label, values, Cost(1800, 1000), Cost(7200, 5000))


RESULTS = {
    "good": cell("good", 20.0, 10.0, 30.0),
    "bad/worse": cell("bad/worse", 20.5, 40.0, 35.0),
}


def test_claims_are_judged_at_their_steps() -> None:
    outcomes = [each.verdict.outcome for each in judge_claims(STUDY, RESULTS)]
    assert outcomes == ["holds", "lies inside the noise", "does not hold"]


def test_a_sentence_says_who_claims_what_and_whether_it_holds() -> None:
    first, second, third = (each.sentence for each in judge_claims(STUDY, RESULTS))
    assert first == (
        "“good” before “bad/worse” by FID (the paper's): the ordering holds (difference +30.0000, noise up to 0.0000)."
    )
    assert " by FID after 10 steps (the paper's): the ordering lies inside the noise" in second
    assert "(asked by us): the ordering does not hold (difference -5.00" in third


def test_the_page_has_both_tables_and_the_cost() -> None:
    strip = Strip(("a red house",), {"good": [], "bad/worse": []})
    page = study_page(STUDY, RESULTS, judge_claims(STUDY, RESULTS), strip)
    assert "Rows: good; bad/worse." in page
    assert "Columns: “a red house”." in page
    assert "Measured (mean ± standard deviation of 2 seeds)" in page
    assert "| cell | steps | FID ↓ | CLIP score ↑ |" in page
    assert page.index("| good | 10 | 20.5000 ± 0.7071 | 30.00 ± 0.00 |") < page.index(
        "| good | 20 | 10.5000 ± 0.7071 |"
    )
    assert "| bad | – |" in page
    assert "Good is better." in page
    assert "Bear this in mind." in page
    assert "| good | 0.50 | 1,000 | 2.00 | 5,000 |" in page


@pytest.mark.parametrize("curves", [True, False])
def test_all_files_are_written(curves: bool, tmp_path: Path) -> None:
    results = RESULTS
    if not curves:
        results = {name: replace(each, values={20: each.values[20]}) for name, each in RESULTS.items()}
    claims = STUDY.claims[::2]
    study = replace(STUDY, claims=claims)
    pictures = [tmp_path / "1.png", tmp_path / "2.png"]
    for side, color, path in zip((64, 128), ("red", "blue"), pictures, strict=True):
        Image.new("RGB", (side, side), color).save(path)
    strip = Strip(("one", "two"), {"good": pictures, "bad/worse": pictures[::-1]})
    page = write_study(study, results, judge_claims(study, results), strip, tmp_path / "out")
    with Image.open(tmp_path / "out" / "table9.jpg") as drawn:
        width, height = drawn.size
        places = [(x, y) for y in (9, height - 9) for x in (9, width - 9)]
        red = [drawn.getpixel(place)[0] > 128 for place in places]
    assert red == [True, False, False, True]
    tmp_path = tmp_path / "out"
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert page == tmp_path / "table9.md"
    assert files == {
        "table9.md",
        "table9.json",
        "table9.png",
        "table9.jpg",
        "table9/good.json",
        "table9/bad-worse.json",
    }


def test_a_table_has_a_dash_for_what_is_not_known() -> None:
    assert markdown_table(["a", "b"], [["x", None]]) == "| a | b |\n| --- | --: |\n| x | – |"
