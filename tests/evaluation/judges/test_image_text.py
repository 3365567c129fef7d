from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from pixart_sigma.errors import WeightsError
from pixart_sigma.evaluation.judges.image_text import (
    IMAGE_TEXT_FILE,
    MAX_PIECES,
    TOKENIZER_FILE,
    ImageText,
    ImageTextConfig,
    load_image_text,
    save_image_text,
)

WORDS = "<pad> </s> <unk> a red blue house cat in the snow".split()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    made = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return made


@pytest.fixture
def model(tokenizer: Any) -> ImageText:
    torch.manual_seed(0)
    config = ImageTextConfig(
        channels=(8, 8, 16), num_pieces=len(WORDS), text_width=16, text_layers=2, text_heads=2
    )
    return ImageText(config, tokenizer).eval()


def images(num: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num, 96, 160, 3), dtype=np.uint8)


def test_the_packaged_size(tokenizer: Any) -> None:
    model = ImageText(ImageTextConfig(num_pieces=1000), tokenizer)
    assert sum(weight.numel() for weight in model.parameters()) <= 2_000_000


def test_embeddings_are_unit_vectors(model: ImageText) -> None:
    for vectors in (model.embed_images(images(3)), model.embed_texts(["a red house", "a cat", ""])):
        assert vectors.dtype == torch.float32
        assert vectors.shape[1] == 256
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(vectors)))
    assert model.image_features(images(3)).shape == (3, 256)
    assert model.image_features(images(0)).shape == (0, 256)


def test_features_are_those_before_the_projection(model: ImageText) -> None:
    with torch.no_grad():
        projected = model.image_projection(model.image_features(images(2)))
    torch.testing.assert_close(torch.nn.functional.normalize(projected, dim=1), model.embed_images(images(2)))


def test_a_text_does_not_depend_on_those_beside_it(model: ImageText) -> None:
    together = model.embed_texts(["a cat", "a red house in the snow"])
    torch.testing.assert_close(model.embed_texts(["a cat"]), together[:1], atol=1e-5, rtol=1e-4)


def test_the_order_of_words_matters_and_their_case_does_not(model: ImageText) -> None:
    first, second, upper = model.embed_texts(
        ["red house blue cat", "blue house red cat", "RED house blue CAT"]
    )
    torch.testing.assert_close(first, upper)
    assert (first - second).abs().max() > 1e-3


def test_a_long_text_is_cut(model: ImageText) -> None:
    cut, long = model.embed_texts(
        [" ".join(["cat"] * MAX_PIECES), " ".join(["cat"] * MAX_PIECES + ["house"])]
    )
    torch.testing.assert_close(cut, long)


def test_files_hold_the_model_and_its_tokenizer(model: ImageText, tmp_path: Path) -> None:
    save_image_text(model, tmp_path)
    loaded = load_image_text(tmp_path / IMAGE_TEXT_FILE)
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight.bfloat16().float())
    similar = (loaded.embed_texts(["a cat"]) * model.embed_texts(["a cat"])).sum()
    assert similar > 0.99

    (tmp_path / TOKENIZER_FILE).unlink()
    with pytest.raises(WeightsError, match="tokenizer"):
        load_image_text(tmp_path / IMAGE_TEXT_FILE)
