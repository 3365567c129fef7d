from pathlib import Path

import pytest
import torch

from pixart_sigma.encoders.text import TextEncoder
from pixart_sigma.encoders.tokenizer import Tokenizer
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
def tokenizer() -> Tokenizer:
    scenes = [sample_scene(seed) for seed in range(200)]
    return train_tokenizer([caption(scene) for scene in scenes for caption in CAPTIONS], 400)


def test_the_tokenizer_keeps_t5s_conventions(tokenizer: Tokenizer) -> None:
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)
    assert tokenizer.backend.token_to_id("<unk>") == 2
    assert tokenizer.encode([""]) == [[1]]
    ids, shouted = tokenizer.encode(["a small cactus in the desert", "A Small CACTUS  in the desert "])
    assert ids[-1] == 1
    assert ids == shouted


def test_a_word_never_seen_falls_into_letters(tokenizer: Tokenizer) -> None:
    assert 2 not in tokenizer.encode(["Quick zebras, 42%!"])[0]
    assert tokenizer.decode(tokenizer.encode(["quick zebra"])[0]) == "quick zebra"


def test_a_common_word_is_one_piece(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode(["small"])[0]) == 2


def test_training_exports_what_the_pipeline_loads(tmp_path: Path, tokenizer: Tokenizer) -> None:
    train("pocket-text-encoder", tmp_path, RUN)
    encoder = TextEncoder.from_pretrained(tmp_path / "export")
    embeddings, mask = encoder.encode(["a RED house", ""])
    assert embeddings.shape[0] == 2
    assert embeddings.shape[2] == 16
    assert mask.sum(1)[1] == 1
    # The lower-casing survives the folder.
    assert encoder.tokenize(["a RED house"]) == encoder.tokenize(["a red house"])


def test_rows_of_a_caption_table_are_the_tokenizers(tokenizer: Tokenizer) -> None:
    captions = ["a cactus", "", "a small red house in the snow on the left"]
    table = CaptionTable(tokenizer, captions)
    ids, mask = table.take(torch.tensor([2, 1]))
    assert ids.shape == mask.shape
    assert ids.shape[1] % 8 == 0
    for row, keep, caption in zip(ids, mask, (captions[2], captions[1]), strict=True):
        assert [row[keep].tolist()] == tokenizer.encode([caption])
        assert set(row[~keep].tolist()) <= {0}
