"""Features of pictures for FID and CMMD, embeddings of pictures and texts for the CLIP score: one interface, three
models to choose from.

Legend: N pictures of one size, H × W pixels; D features; E embedding's width. Knows nothing of the metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixart_sigma.errors import InvalidInput

Images = NDArray[np.uint8]
"""(N, H, W, 3), sRGB."""


class FeatureExtractor(Protocol):
    """`name` tells the weights, so that features of other weights are never compared; it names no path. `side`: of the
    square, in pixels, that a picture is resized to.
    """

    name: str
    side: int

    def features(self, images: Images) -> Tensor:
        """One batch of pictures → (N, D) fp32 on the CPU."""


@runtime_checkable
class ImageTextExtractor(FeatureExtractor, Protocol):
    """An extractor that also puts pictures and texts into one space."""

    def embed_images(self, images: Images) -> Tensor:
        """One batch of pictures → (N, E) fp32 on the CPU, unit vectors."""

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """One batch of texts → (N, E) fp32 on the CPU, unit vectors."""


def extractor(choice: str, device: torch.device | str = "cpu") -> FeatureExtractor:
    """ "pocket", "inception:PATH" or "clip:PATH_OR_ID" → the extractor on a device.

    Raises InvalidInput for any other choice, WeightsError if the weights are missing or do not fit.
    """
    kind, _, source = choice.partition(":")
    if choice == "pocket":
        from pixart_sigma.evaluation.features.pocket import PocketExtractor

        return PocketExtractor.load(device)
    if kind == "inception" and source:
        from pixart_sigma.evaluation.features.inception import InceptionExtractor

        return InceptionExtractor.load(Path(source), device)
    if kind == "clip" and source:
        from pixart_sigma.evaluation.features.clip import ClipExtractor

        return ClipExtractor.load(source, device)
    raise InvalidInput(
        f"unknown features {choice!r}; choose pocket, inception:PATH (the .pth file) "
        "or clip:PATH_OR_ID (a folder or a Hub id)"
    )
