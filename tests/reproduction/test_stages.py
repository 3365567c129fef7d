"""Stages are trained once, go on where they were killed, and are what one run of their length would be."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pixart_sigma.errors import PixArtSigmaError, Stopped
from pixart_sigma.reproduction.results import Cost
from pixart_sigma.reproduction.scale import FAST
from pixart_sigma.reproduction.stages import (
    Workshop,
    cost_from_scratch,
    export_folder,
    open_workshop,
    seconds_per_step,
    stage_cost,
    stage_folder,
    stage_key,
    stage_overrides,
    train_stage,
)
from pixart_sigma.reproduction.studies.stages import base, old_autoencoder, raised, swapped
from pixart_sigma.reproduction.study import Stage, Trained
from pixart_sigma.training import run as training
from pixart_sigma.training.recipe import TransformerRecipe, load_recipe

BASE = replace(base(FAST), lengths=(1, 3))
RAISED = replace(raised(FAST), lengths=(2,), inputs=(("start.model", Trained(BASE, 3)),))


@pytest.fixture
def workshop(tiny_folder: Path, tmp_path: Path) -> Workshop:
    return open_workshop(tmp_path / "out", tiny_folder)


def weights(workshop: Workshop, trained: Trained, seed: int = 0) -> dict[str, torch.Tensor]:
    (file,) = (export_folder(workshop, trained, seed) / "transformer").glob("*.safetensors")
    return load_file(file)


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_an_export_at_a_length_is_what_a_run_of_that_length_gives(workshop: Workshop) -> None:
    straight = replace(BASE, lengths=(3,))
    assert train_stage(workshop, BASE, 0, "cpu")
    assert train_stage(workshop, straight, 0, "cpu")
    assert same(weights(workshop, Trained(BASE, 3)), weights(workshop, Trained(straight, 3)))
    assert not same(weights(workshop, Trained(BASE, 1)), weights(workshop, Trained(BASE, 3)))
    # One table serves both.
    assert len(list((workshop.output / "tables").iterdir())) == 1


def test_a_finished_stage_is_not_trained_again_and_its_checkpoints_are_gone(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train_stage(workshop, BASE, 0, "cpu")
    assert not (stage_folder(workshop, BASE, 0) / "checkpoints").exists()

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(training, "train", fail)
    assert not train_stage(workshop, BASE, 0, "cpu")


def test_a_stage_that_was_stopped_goes_on(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    train, steps = training.train, []

    def stop_after_the_first(recipe: str, output: Path, overrides: list[str], **options: bool) -> None:
        train(recipe, output, overrides, **options)
        steps.append(load_recipe(recipe, overrides).run.steps)
        if len(steps) == 2:
            raise Stopped("stopped", 143)  # after the checkpoint, before the export is put in its place

    monkeypatch.setattr(training, "train", stop_after_the_first)
    with pytest.raises(Stopped):
        train_stage(workshop, BASE, 0, "cpu")
    assert export_folder(workshop, Trained(BASE, 1), 0).is_dir()
    assert not export_folder(workshop, Trained(BASE, 3), 0).exists()
    assert train_stage(workshop, BASE, 0, "cpu")
    assert steps == [1, 3, 3]
    monkeypatch.undo()
    straight = replace(BASE, lengths=(3,))
    train_stage(workshop, straight, 0, "cpu")
    assert same(weights(workshop, Trained(BASE, 3)), weights(workshop, Trained(straight, 3)))


def test_an_export_that_is_gone_is_not_made_of_later_weights(workshop: Workshop) -> None:
    (stage_folder(workshop, BASE, 0) / "checkpoints" / "step-00000002").mkdir(parents=True)
    with pytest.raises(PixArtSigmaError, match="has gone beyond step 1, whose export is gone; delete"):
        train_stage(workshop, BASE, 0, "cpu")


def test_a_stage_starts_from_anothers_export(workshop: Workshop) -> None:
    train_stage(workshop, BASE, 0, "cpu")
    train_stage(workshop, RAISED, 0, "cpu")
    recipe = load_recipe(str(stage_folder(workshop, RAISED, 0) / "recipe.toml"))
    assert isinstance(recipe, TransformerRecipe)
    assert recipe.start is not None
    assert recipe.start.model == export_folder(workshop, Trained(BASE, 3), 0)
    own, whole = (cost(workshop, Trained(RAISED, 2), 0) for cost in (stage_cost, cost_from_scratch))
    assert own.samples == 4
    assert whole.samples == 4 + 6
    assert 0 < own.seconds < whole.seconds
    assert whole == own + stage_cost(workshop, Trained(BASE, 3), 0)
    assert stage_cost(workshop, Trained(BASE, 1), 0).samples == 2
    assert seconds_per_step(workshop, Trained(RAISED, 2), 0) > 0


def test_an_autoencoder_is_exchanged(workshop: Workshop) -> None:
    """The whole of Figure 8a: an autoencoder, a base on it, the swap."""
    old = old_autoencoder(FAST)
    swap = swapped(FAST)
    (_, start), _ = swap.inputs
    assert start is not None
    train_stage(workshop, old, 0, "cpu")
    train_stage(workshop, start.stage, 0, "cpu")
    train_stage(workshop, replace(swap, lengths=(1,)), 0, "cpu")
    log = (stage_folder(workshop, replace(swap, lengths=(1,)), 0) / "surgery.jsonl").read_text()
    assert "scaling" in log


def test_a_key_tells_all_that_decides(workshop: Workshop) -> None:
    changed = replace(BASE, overrides=(*BASE.overrides, "run.gradient_clip=2.0"))
    later = replace(RAISED, inputs=(("start.model", Trained(BASE, 1)),))
    other = replace(RAISED, inputs=(("start.model", Trained(changed, 3)),))
    elsewhere = replace(workshop, ground="another world")
    keys = [
        stage_key(workshop, BASE, 0),
        stage_key(workshop, BASE, 1),
        stage_key(workshop, changed, 0),
        stage_key(workshop, replace(BASE, lengths=(1, 2, 3)), 0),
        stage_key(workshop, RAISED, 0),
        stage_key(workshop, later, 0),
        stage_key(workshop, other, 0),
        stage_key(workshop, RAISED, 1),
        stage_key(elsewhere, BASE, 0),
    ]
    assert len(set(keys)) == len(keys)
    renamed = replace(BASE, name="other")
    assert stage_key(workshop, renamed, 0) == stage_key(workshop, BASE, 0)


def test_what_is_not_seeded_is_the_same_for_all_seeds(workshop: Workshop) -> None:
    stage = old_autoencoder(FAST)
    assert stage_folder(workshop, stage, 0) == stage_folder(workshop, stage, 1)
    assert "run.seed=0" in stage_overrides(workshop, stage, 1)
    assert "run.seed=1" in stage_overrides(workshop, BASE, 1)


def tables(workshop: Workshop, stage: Stage) -> str:
    return next(line for line in stage_overrides(workshop, stage, 0) if line.startswith("data.folder="))


def test_tables_are_shared_by_those_with_the_same_pictures(workshop: Workshop) -> None:
    same_pictures = replace(BASE, overrides=(*BASE.overrides, "captions.dropout=0.2"))
    more = replace(BASE, overrides=(*BASE.overrides, "data.sources.0.drawn.num_scenes=5"))
    assert tables(workshop, same_pictures) == tables(workshop, BASE)
    assert len({tables(workshop, stage) for stage in (BASE, more, RAISED)}) == 3


def test_costs_add_up() -> None:
    assert Cost(1.5, 2) + Cost(2.0, 3) == Cost(3.5, 5)
