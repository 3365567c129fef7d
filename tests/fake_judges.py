"""Judges without weights: they know the drawn pictures of the fixed prompts by heart, and nothing else.

Each conftest.py that needs them imports `fake_judges`.
"""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from pixart_sigma.evaluation.judges.checker import Reading
from pixart_sigma.evaluation.prompts import Prompt, evenly, pocket_prompts
from pixart_sigma.world import render
from true_reading import true_reading

SIDE = 32
PROMPTS: tuple[Prompt, ...] = evenly(pocket_prompts(), 19)
NOTHING = Reading("room", None, None, "pixel", {}, None, None)


class FakeExtractor:
    """Features are the mean colour; a text's embedding is its length's."""

    name = "fake-1"
    side = 24

    def __init__(self, device: torch.device | str = "cpu") -> None:
        torch.device(device)  # as the others, it takes what torch takes

    def features(self, images: NDArray[np.uint8]) -> Tensor:
        return torch.from_numpy(images.mean((1, 2))).float()

    def embed_images(self, images: NDArray[np.uint8]) -> Tensor:
        return normalize(self.features(images))

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        return normalize(torch.tensor([[len(text), 30.0, 30.0] for text in texts]))


@pytest.fixture
def fake_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {}
    letters = {}
    for prompt in PROMPTS:
        assert prompt.scene is not None
        picture = render(prompt.scene, SIDE, SIDE).tobytes()
        known[picture] = true_reading(prompt.scene)
        letters[picture] = prompt.lettering or ""

    def read(checker: object, images: NDArray[np.uint8]) -> list[Reading]:
        return [known.get(image.tobytes(), NOTHING) for image in images]

    def reader() -> object:
        return lambda image: letters.get(image.tobytes(), "X")

    module = "pixart_sigma.evaluation.run"
    monkeypatch.setattr(f"{module}.extractor", lambda choice, device: FakeExtractor())
    monkeypatch.setattr(f"{module}.load_checker", lambda device: object())
    monkeypatch.setattr(f"{module}.read", read)
    monkeypatch.setattr(f"{module}.tesseract_reader", reader)
