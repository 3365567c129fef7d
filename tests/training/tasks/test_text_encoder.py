from pathlib import Path
from typing import Any

import pytest
import torch

from pixart_sigma.encoders.text import TextEncoder
from pixart_sigma.training.run import train
from pixart_sigma.training.tasks.captions import CaptionTable
from pixart_sigma.training.tasks.text_encoder import CAPTIONS, train_tokenizer
from pixart_sigma.world import sample_scene

RUN = [
    "run.steps=2",
    "run.batch_size=4",
    "rate.warmup_steps=1",
    "num_scenes=40",
    "num_validation=3",
    "run.device=cpu",
    "model.vocabulary_size=200",
    "model.width=16",
    "model.num_heads=2",
    "model.num_layers=1",
    "model.feed_forward_width=32",
]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    scenes = [sample_scene(seed) for seed in range(200)]
    return train_tokenizer([caption(scene) for scene in scenes for caption in CAPTIONS], 400)


def test_the_tokenizer_keeps_t5s_conventions(tokenizer: Any) -> None:
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 2)
    assert tokenizer("").input_ids == [1]
    ids = tokenizer("a small cactus in the desert").input_ids
    assert ids[-1] == 1
    assert ids == tokenizer("A Small CACTUS  in the desert ").input_ids


def test_a_word_never_seen_falls_into_letters(tokenizer: Any) -> None:
    assert 2 not in tokenizer("Quick zebras, 42%!").input_ids
    assert tokenizer.decode(tokenizer("quick zebra").input_ids, skip_special_tokens=True) == "quick zebra"


def test_a_common_word_is_one_piece(tokenizer: Any) -> None:
    assert len(tokenizer("small").input_ids) == 2


def test_training_exports_what_the_pipeline_loads(tmp_path: Path, tokenizer: Any) -> None:
    train("pocket-text-encoder", tmp_path, RUN)
    encoder = TextEncoder.from_pretrained(tmp_path / "export")
    embeddings, mask = encoder.encode(["a RED house", ""])
    assert embeddings.shape[0] == 2
    assert embeddings.shape[2] == 16
    assert mask.sum(1)[1] == 1
    # The lower-casing survives the folder.
    assert encoder.tokenize(["a RED house"]) == encoder.tokenize(["a red house"])


def test_rows_of_a_caption_table_are_the_tokenizers(tokenizer: Any) -> None:
    captions = ["a cactus", "", "a small red house in the snow on the left"]
    table = CaptionTable(tokenizer, captions)
    ids, mask = table.take(torch.tensor([2, 1]))
    assert ids.shape == mask.shape
    assert ids.shape[1] % 8 == 0
    for row, keep, caption in zip(ids, mask, (captions[2], captions[1]), strict=True):
        assert row[keep].tolist() == tokenizer(caption).input_ids
        assert set(row[~keep].tolist()) <= {0}
