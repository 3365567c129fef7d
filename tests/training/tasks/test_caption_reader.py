import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pixart_sigma.encoders.text import TextEncoder
from pixart_sigma.errors import RecipeError
from pixart_sigma.evaluation.judges.labels import ANSWERS, OF_KIND, UNASKED, truth_labels
from pixart_sigma.pipeline.placement.processes import joined
from pixart_sigma.training.recipe import CaptionReaderRecipe, load_recipe
from pixart_sigma.training.run import train
from pixart_sigma.training.tasks.caption_reader import CaptionReader, CaptionReaderTask, LabelledCaptions
from pixart_sigma.training.watching.metrics import read_metrics
from pixart_sigma.world import sample_scene, short_caption
from pixart_sigma.world.scene import KINDS
from tiny_run import stored

SCENES = [sample_scene(seed) for seed in range(6)]


def settings(tiny: Path, *more: str) -> list[str]:
    return [
        f'start="{tiny}"',
        "run.steps=2",
        "run.batch_size=4",
        "run.device=cpu",
        "run.checkpoint_every=1",
        "rate.warmup_steps=1",
        "num_scenes=8",
        "num_validation=3",
        "num_heads=2",
        *more,
    ]


def recipe(tiny: Path, *more: str) -> CaptionReaderRecipe:
    loaded = load_recipe("pocket-reader", settings(tiny, *more))
    assert isinstance(loaded, CaptionReaderRecipe)
    return loaded


def labelled(text: TextEncoder) -> LabelledCaptions:
    ids = [torch.tensor(row) for row in text.tokenize([short_caption(scene) for scene in SCENES])]
    padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=text.tokenizer.pad_token_id)
    mask = torch.arange(padded.shape[1]) < torch.tensor([len(row) for row in ids])[:, None]
    return LabelledCaptions(padded, mask, truth_labels(SCENES), None, 1 / len(SCENES))


@pytest.fixture(scope="module")
def text(tiny_folder: Path) -> TextEncoder:
    return TextEncoder.from_pretrained(tiny_folder)


@pytest.fixture(scope="module")
def reader(tiny_folder: Path, text: TextEncoder) -> CaptionReader:
    torch.manual_seed(0)
    return CaptionReader(text.model, recipe(tiny_folder, "keep=0.5"))


def test_it_asks_what_the_judges_ask(reader: CaptionReader, text: TextEncoder) -> None:
    logits = reader.read(labelled(text))
    for name, values in logits.items():
        kinds = (len(KINDS),) if name in OF_KIND else ()
        assert values.shape == (len(SCENES), *kinds, len(ANSWERS[name]))
    assert logits.keys() == ANSWERS.keys()


def test_padding_says_nothing(reader: CaptionReader, text: TextEncoder) -> None:
    batch = labelled(text)
    padded = replace(
        batch,
        ids=torch.nn.functional.pad(batch.ids, (0, 5), value=text.tokenizer.pad_token_id),
        mask=torch.nn.functional.pad(batch.mask, (0, 5)),
    )
    for name, values in reader.read(padded).items():
        torch.testing.assert_close(values, reader.read(batch)[name], atol=1e-5, rtol=1e-5)


def test_the_loss_is_a_mean_over_captions(reader: CaptionReader, text: TextEncoder) -> None:
    batch = labelled(text)
    parts = [
        LabelledCaptions(
            batch.ids[row : row + 1],
            batch.mask[row : row + 1],
            {name: column[row : row + 1] for name, column in batch.labels.items()},
            None,
            batch.share,
        )
        for row in range(len(SCENES))
    ]
    whole = reader(batch)["loss"]
    torch.testing.assert_close(whole, torch.stack([reader(part)["loss"] for part in parts]).sum())


def test_colours_and_places_weigh_more(tiny_folder: Path, text: TextEncoder) -> None:
    batch = labelled(text)
    losses = []
    for things in (1, 3):
        torch.manual_seed(0)
        losses.append(CaptionReader(text.model, recipe(tiny_folder, f"things={things}"))(batch)["loss"])
    without = {
        name: torch.full_like(column, UNASKED) if name in ("colour", "place") else column
        for name, column in batch.labels.items()
    }
    torch.manual_seed(0)
    rest = CaptionReader(text.model, recipe(tiny_folder))(replace(batch, labels=without))["loss"]
    torch.testing.assert_close(losses[1] - rest, 3 * (losses[0] - rest))


def test_what_is_kept_costs_nothing_until_it_moves(reader: CaptionReader, text: TextEncoder) -> None:
    batch = labelled(text)
    with torch.no_grad():
        known = text.model(input_ids=batch.ids, attention_mask=batch.mask).last_hidden_state
        still, moved = (reader(replace(batch, known=known + by)) for by in (0.0, 2.0))
    assert float(still["moved"]) < 1e-9
    torch.testing.assert_close(moved["moved"], torch.tensor(4.0))
    torch.testing.assert_close(moved["loss"], still["loss"] + 0.5 * 4.0)


@pytest.mark.parametrize("keep", [0.0, 0.5])
def test_a_run_exports_a_text_encoder(tiny_folder: Path, tmp_path: Path, keep: float) -> None:
    train("pocket-reader", tmp_path, settings(tiny_folder, f"keep={keep}", "run.validate_every=1"))
    before, after = (TextEncoder.from_pretrained(folder) for folder in (tiny_folder, tmp_path / "export"))
    assert before.tokenize(["a RED house"]) == after.tokenize(["a RED house"])
    assert before.encode(["a red house"])[0].shape == after.encode(["a red house"])[0].shape
    assert not torch.equal(before.encode(["a red house"])[0], after.encode(["a red house"])[0])
    last = read_metrics(tmp_path / "metrics.jsonl")
    shares = [line for line in last if "validation_short_colour" in line][-1]
    assert all(
        0 <= float(shares[f"validation_{form}_{name}"] or 0) <= 1
        for form in ("short", "dense")
        for name in ("colour", "place")
    )


def test_the_export_is_the_average_and_is_noted(tiny_folder: Path, tmp_path: Path) -> None:
    train("pocket-reader", tmp_path, settings(tiny_folder))
    exported = load_file(tmp_path / "export/text_encoder/model.safetensors")["shared.weight"]
    assert torch.equal(exported, stored(tmp_path)["average.text_encoder.shared.weight"])
    # By this `reproduce chain` knows that a link is finished.
    assert "export_pieces" in read_metrics(tmp_path / "metrics.jsonl")[-1]


def test_a_run_goes_on_from_the_same_start_only(tiny_folder: Path, tmp_path: Path) -> None:
    start, output = tmp_path / "start", tmp_path / "run"
    shutil.copytree(tiny_folder, start)
    train("pocket-reader", output, settings(start))
    file = start / "text_encoder/model.safetensors"
    weights = {name: weight * 2 for name, weight in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(RecipeError, match="encoders"):
        train("pocket-reader", output, settings(start), resume=True)


def test_heads_that_do_not_divide_the_width_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="num_heads 7 does not divide the text encoder's width"):
        train("pocket-reader", tmp_path, settings(tiny_folder, "num_heads=7"))


def test_batches_are_short_or_dense(tiny_folder: Path, tmp_path: Path) -> None:
    with joined("cpu") as processes:
        task = CaptionReaderTask(recipe(tiny_folder, "short=0.5", "first_seed=40"), tmp_path, processes)
    forms = {task.record_ids(step, range(4))[0].split("-")[0] for step in range(20)}
    assert forms == {"short", "dense"}
    for step in range(4):
        ids, mask, labels = task.load(step, range(1, 4))
        assert ids.shape[0] == mask.shape[0] == labels["count"].shape[0] == 3
        names = task.record_ids(step, range(4))
        assert len({name.split("-")[0] for name in names}) == 1
        assert all(40 <= int(name.split("-")[1]) < 48 for name in names)


def test_scenes_of_the_evaluation_are_not_read(tiny_folder: Path) -> None:
    with pytest.raises(RecipeError, match="are for validation and evaluation, but 1000000000 is trained on"):
        recipe(tiny_folder, "first_seed=999999993")


def test_a_share_beyond_one_is_refused(tiny_folder: Path) -> None:
    with pytest.raises(RecipeError, match="short"):
        recipe(tiny_folder, "short=1.5")
