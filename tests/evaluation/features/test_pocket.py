import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pixart_sigma.evaluation.features import ImageTextExtractor, extractor


class StandIn(nn.Linear):
    """What an extractor asks of the image-text model: features and embeddings of different widths."""

    def image_features(self, images: NDArray[np.uint8]) -> Tensor:
        return self(torch.from_numpy(images).bfloat16().mean((1, 2)))

    def embed_images(self, images: NDArray[np.uint8]) -> Tensor:
        return nn.functional.normalize(self.image_features(images)[:, :2], dim=-1)

    def embed_texts(self, texts: list[str]) -> Tensor:
        return nn.functional.normalize(torch.tensor([[len(text), 1.0] for text in texts]), dim=-1)


def test_it_is_the_packages_image_text_model(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = []

    def load_image_text(device: str) -> StandIn:
        devices.append(device)
        return StandIn(3, 4).bfloat16()

    judge = ModuleType("image_text")
    judge.load_image_text = load_image_text
    monkeypatch.setitem(sys.modules, "pixart_sigma.evaluation.judges.image_text", judge)

    first, second = extractor("pocket", "cpu"), extractor("pocket", "cpu")
    assert devices == ["cpu", "cpu"]
    assert first.name.startswith("pocket-")
    assert first.name != second.name  # other weights
    assert isinstance(first, ImageTextExtractor)
    features = first.features(np.ones((5, 8, 6, 3), np.uint8))
    assert (features.shape, features.dtype, features.requires_grad) == ((5, 4), torch.float32, False)
    assert first.embed_images(np.ones((5, 8, 6, 3), np.uint8)).shape == (5, 2)
    assert first.embed_texts(["a", "b", "c"]).shape == (3, 2)
