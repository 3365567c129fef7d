"""What holds for all studies: they refer only to what they have, and their recipes are right."""

import pytest

from pixart_sigma.evaluation import figures
from pixart_sigma.reproduction import metric
from pixart_sigma.reproduction.measure import FIRST_DENSE_SEED
from pixart_sigma.reproduction.metric import METRICS
from pixart_sigma.reproduction.paper import TABLE_2, TABLE_3A, TABLE_3B, TABLE_3C
from pixart_sigma.reproduction.scale import FAST, FULL, Scale
from pixart_sigma.reproduction.studies import STUDIES
from pixart_sigma.reproduction.study import Claim, Stage, Study, stages_of
from pixart_sigma.training.recipe import TransformerRecipe, load_recipe
from pixart_sigma.training.surgery import compressed_blocks

ALL = [(name, scale) for name in STUDIES for scale in (FULL, FAST)]
each_study = pytest.mark.parametrize(
    ("name", "scale"), ALL, ids=[f"{name}-{'full' if scale is FULL else 'fast'}" for name, scale in ALL]
)


def transformer(stage: Stage) -> TransformerRecipe:
    recipe = load_recipe(stage.recipe, list(stage.overrides))
    assert isinstance(recipe, TransformerRecipe)
    return recipe


def compression(study: Study, label: str) -> tuple[object, ...]:
    (cell,) = [cell for cell in study.cells if cell.label == label]
    start = transformer(cell.stage).start
    assert start is not None
    found = start.kv_compression
    return () if found is None else (found.window, found.blocks, found.operator, found.init, found.norm)


@each_study
def test_claims_are_about_what_is_measured(name: str, scale: Scale) -> None:
    study = STUDIES[name](scale)
    points = {cell.label: cell.at for cell in study.cells}
    assert study.name == name
    assert len(points) == len(study.cells)
    for claim in study.claims:
        assert claim.better != claim.worse
        assert claim.metric in study.metrics
        assert claim.at is None or (claim.at in points[claim.better] and claim.at in points[claim.worse])
    assert METRICS.keys() >= set(study.metrics)
    for cell in study.cells:
        assert set(cell.at) <= set(cell.stage.lengths)
        assert list(cell.at) == sorted(cell.at)


@each_study
def test_recipes_are_right_and_their_lengths_extend_each_other(name: str, scale: Scale) -> None:
    for stage in stages_of(STUDIES[name](scale).cells):
        recipe = load_recipe(stage.recipe, list(stage.overrides))
        assert list(stage.lengths) == sorted(set(stage.lengths))
        if len(stage.lengths) > 1:
            assert recipe.rate.kind == "constant"
            assert recipe.run.keep_every is None
        if isinstance(recipe, TransformerRecipe):
            # A table is named after it.
            assert recipe.resolution in (scale.low, scale.middle, scale.high)
        for _, given in stage.inputs:
            assert given is None or given.steps in given.stage.lengths


@each_study
def test_all_cells_are_other_stages_or_other_steps(name: str, scale: Scale) -> None:
    cells = STUDIES[name](scale).cells
    assert len({(cell.stage, cell.at) for cell in cells}) == len(cells)


def test_what_is_the_same_training_is_the_same_stage() -> None:
    stages = [stage for study in STUDIES.values() for stage in stages_of(study(FULL).cells)]
    named: dict[str, set[Stage]] = {}
    for stage in stages:
        named.setdefault(stage.name, set()).add(stage)
    assert {name for name, found in named.items() if len(found) > 1} == set()
    assert sum(stage.name == "base" for stage in stages) == len(STUDIES)


def test_a_stage_comes_after_what_it_starts_from() -> None:
    names = [stage.name for stage in stages_of(STUDIES["fig8"](FULL).cells)]
    assert names.index("autoencoder") < names.index("old-base") < names.index("swap")


def test_the_tables_compress_what_the_paper_compressed() -> None:
    deep = ((2, 2), "deep", "conv", "average", None)
    table3a, table3b, table3c = (STUDIES[f"table3{letter}"](FULL) for letter in "abc")
    assert compression(table3a, "none") == compression(table3b, "none") == ()
    assert compression(table3a, "deep") == compression(table3b, "conv 2×2") == deep
    assert compression(table3a, "shallow")[1] == "shallow"
    assert compression(table3a, "middle")[1] == "middle"
    halves = [compressed_blocks(half, 6) for half in ("shallow", "middle", "deep")]
    assert halves == [(0, 1, 2), (1, 2, 3), (3, 4, 5)]
    assert compression(table3b, "token discarding")[2] == "discard"
    assert compression(table3b, "token pooling")[2] == "average"
    windows = [compression(table3c, f"high, {window}") for window in ("1×1", "1×2", "2×2", "3×3")]
    assert [found and found[0] for found in windows] == [(), (1, 2), (2, 2), (3, 3)]
    figure8 = STUDIES["fig8"](FULL)
    assert compression(figure8, "(c) random, no norm")[3:] == ("random", False)
    assert compression(figure8, "(c) average, norm") == deep


def test_without_interpolation_positions_go_on() -> None:
    stages = {cell.label: cell.stage for cell in STUDIES["fig8"](FULL).cells}
    base, raised = (
        transformer(stages[label]) for label in ("(a) from scratch", "(b) positions not interpolated")
    )
    assert base.scratch is not None
    assert raised.start is not None
    assert raised.start.interpolation_scale == base.scratch.interpolation_scale == 0.125
    interpolated = transformer(stages["(b, c) positions interpolated, not compressed"]).start
    assert interpolated is not None
    assert interpolated.interpolation_scale is None
    fresh = transformer(stages["(b) from scratch"]).scratch
    assert fresh is not None
    assert (fresh.sample_size, fresh.interpolation_scale) == (16, 0.25)


def test_the_swap_begins_with_another_autoencoder() -> None:
    stage = next(cell.stage for cell in STUDIES["fig8"](FULL).cells if "swapped" in cell.label)
    inputs = dict(stage.inputs)
    old = inputs["start.model"]
    assert old is not None
    assert inputs["start.vae"] is None  # the pocket model's
    autoencoder = dict(old.stage.inputs)["scratch.autoencoder"]
    assert autoencoder is not None
    assert autoencoder.stage.recipe == "pocket-alpha-autoencoder"
    # Compared at the same steps, with the same batches.
    scratch = next(cell.stage for cell in STUDIES["fig8"](FULL).cells if cell.label == "(a) from scratch")
    assert transformer(stage).run.batch_size == transformer(scratch).run.batch_size


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("table2", {"low → middle, many steps": "256 → 512"}),
        ("table3a", {label: label for label in ("none",)}),
        ("table3b", {label: label for label in ("none", "token discarding", "token pooling", "conv 2×2")}),
    ],
)
def test_rows_are_those_of_the_paper(name: str, labels: dict[str, str]) -> None:
    study = STUDIES[name](FULL)
    assert labels.keys() <= {cell.label for cell in study.cells}
    assert set(labels.values()) <= {row[0] for row in study.paper.rows}


def papers_claims(name: str) -> list[Claim]:
    return [claim for claim in STUDIES[name](FULL).claims if not claim.ours]


def test_the_papers_claims_are_what_its_numbers_say() -> None:
    fid = {row[0]: row[1] for row in TABLE_3B.rows}
    for claim in papers_claims("table3b"):
        assert fid[claim.better] < fid[claim.worse]  # type: ignore[operator]
    layers = {str(row[0]).split()[0]: row[1] for row in TABLE_3A.rows}
    for claim in papers_claims("table3a"):
        assert layers[claim.better] < layers[claim.worse]  # type: ignore[operator]
    ratios = {("middle" if row[0] == "512" else "high", row[1]): row for row in TABLE_3C.rows}
    numbers = {"1×1": 1, "1×2": 2, "2×2": 4, "3×3": 9}
    for claim in papers_claims("table3c"):
        better, worse = (
            ratios.get((level, numbers[window]))
            for level, _, window in (label.partition(", ") for label in (claim.better, claim.worse))
        )
        if better and worse:
            column = 2 if claim.metric == metric.FID else 4
            assert better[column] < worse[column]  # type: ignore[operator]
    assert [row[2] for row in TABLE_2.rows] == sorted((row[2] for row in TABLE_2.rows), reverse=True)


def test_metrics_are_called_as_evaluation_calls_them() -> None:
    names = (metric.FID, metric.CMMD, metric.CLIP_SCORE, metric.ADHERENCE)
    assert names == (figures.FID, figures.CMMD, figures.CLIP_SCORE, figures.ADHERENCE)
    assert {name for name, each in METRICS.items() if each.lower_is_better} == {
        metric.FID,
        metric.CMMD,
        metric.HELD_OUT_ERROR,
        metric.STEP_SECONDS,
    }


def test_dense_prompts_are_of_no_scene_that_anything_else_uses() -> None:
    assert FIRST_DENSE_SEED > 4 * 10**9
