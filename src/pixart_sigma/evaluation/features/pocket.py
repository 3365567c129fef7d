"""The package's own small image-text model as an extractor. Knows nothing of how the model computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from pixart_sigma.evaluation.features import Images
from pixart_sigma.evaluation.features.digest import weights_digest
from pixart_sigma.evaluation.judges.backbone import SIDE


class PocketExtractor:
    """An `ImageText` in eval mode; features are its pooled ones, before the projection."""

    side = SIDE

    def __init__(self, model: Any) -> None:
        self._model = model
        self.name = f"pocket-{weights_digest(model.state_dict())}"

    @classmethod
    def load(cls, device: torch.device | str) -> Self:
        """The weights in the package. Raises WeightsError if they are not there."""
        from pixart_sigma.evaluation.judges.image_text import load_image_text

        return cls(load_image_text(device=device))

    @torch.inference_mode()
    def features(self, images: Images) -> Tensor:
        """As in `FeatureExtractor`."""
        return self._model.image_features(images).float().cpu()

    @torch.inference_mode()
    def embed_images(self, images: Images) -> Tensor:
        """As in `ImageTextExtractor`."""
        return self._model.embed_images(images).float().cpu()

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """As in `ImageTextExtractor`."""
        return self._model.embed_texts(texts).float().cpu()
