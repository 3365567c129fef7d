from pathlib import Path

import numpy as np
import pytest
import torch

from pixart_sigma.evaluation.judges.image_text import MAX_PIECES, load_image_text
from pixart_sigma.training.run import train
from pixart_sigma.training.tasks.captions import CaptionTable
from pixart_sigma.training.tasks.image_text import (
    CAPTIONS,
    CaptionedPictures,
    ImageTextObjective,
    _pieces,
)
from pixart_sigma.training.tasks.text_encoder import train_tokenizer

RUN = [
    "run.steps=2",
    "run.batch_size=4",
    "run.device=cpu",
    "rate.warmup_steps=1",
    "image_sizes=[32, 64]",
    "pool.num_scenes=3",
    "pool.num_validation=2",
    "model.channels=[8, 8, 8]",
    "model.num_pieces=200",
    "model.text_width=16",
    "model.text_layers=1",
    "model.text_heads=2",
]


class Fixed(torch.nn.Module):
    """Vectors that are given instead of pixels and ids."""

    scale = torch.tensor(100.0)

    def image_vectors(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels

    def text_vectors(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return ids


def test_the_loss_is_least_where_each_finds_its_own() -> None:
    objective = ImageTextObjective(Fixed())
    vectors = torch.eye(8)
    found = objective(CaptionedPictures(vectors, vectors, vectors, 1 / 8))
    assert found["loss"] < 1e-6
    assert found["top1"] == 1
    lost = objective(CaptionedPictures(vectors, vectors.roll(1, 0), vectors, 1 / 8))
    assert lost["loss"] == pytest.approx(100, rel=1e-3)
    assert lost["top1"] == 0


def test_the_loss_looks_both_ways() -> None:
    objective = ImageTextObjective(Fixed())
    # Every text is nearest to the first picture, although the first picture is nearest to its own text.
    images = torch.tensor([[1.0, 0.0], [0.9, 0.1]])
    texts = torch.tensor([[1.0, 0.0], [0.9, 0.0]])
    terms = objective(CaptionedPictures(images, texts, texts, 1 / 2))
    logits = 100 * images @ texts.T
    own = torch.arange(2)
    both = torch.nn.functional.cross_entropy(logits, own) + torch.nn.functional.cross_entropy(logits.T, own)
    torch.testing.assert_close(terms["loss"], both / 2)


def test_a_record_has_its_own_captions() -> None:
    captions = ["a red cat", "red " * 200, "a blue house", "a blue house in the snow"]
    tokenizer = train_tokenizer(captions, 120)
    table = CaptionTable(tokenizer, captions)
    assert len(CAPTIONS) == 2
    ids, mask = _pieces(table, torch.tensor([1, 0]), torch.tensor([1, 0]))
    decoded = [tokenizer.decode(row[kept].tolist()) for row, kept in zip(ids, mask, strict=True)]
    assert decoded == ["a blue house in the snow", "a red cat"]
    ids, mask = _pieces(table, torch.tensor([0]), torch.tensor([1]))
    assert ids.shape == mask.shape == (1, MAX_PIECES)


def test_training_exports_what_loads(tmp_path: Path) -> None:
    closing = train("pocket-image-text", tmp_path, RUN)
    assert closing.keys() >= {"top1_short", "top1_dense"}
    assert all(0 <= closing[f"top1_{name}"] <= 1 for name in CAPTIONS)
    model = load_image_text(tmp_path / "export/image_text.safetensors")
    vectors = model.embed_texts(["a RED house", "a red house", ""])
    assert torch.equal(vectors[0], vectors[1])
    assert vectors.isfinite().all()
    assert model.embed_images(np.zeros((2, 40, 40, 3), dtype=np.uint8)).shape == (2, 256)
