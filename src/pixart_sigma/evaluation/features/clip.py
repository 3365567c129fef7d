"""CLIP as an extractor: transformers' CLIPModel, from a folder or from the Hub's cache.

A picture's shorter side is resized to the model's and the middle is taken, with Pillow's bicubic filter, as CLIP was
trained. (The authors of CMMD squeeze the picture into a square instead.)
Nothing is downloaded.

Legend: N pictures or texts, E embedding's width. Knows nothing of the metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from pixart_sigma.encoders.pretrained import load_strictly, load_tokenizer
from pixart_sigma.errors import InvalidInput, WeightsError
from pixart_sigma.evaluation.features import Images
from pixart_sigma.evaluation.features.digest import weights_digest

# OpenAI's, which OpenCLIP kept.
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


class ClipExtractor:
    """A transformers tokenizer and `CLIPModel` in eval mode; features are the embeddings of pictures."""

    def __init__(self, tokenizer: Any, model: Any) -> None:
        self._tokenizer = tokenizer
        self._model = model
        self.side: int = model.config.vision_config.image_size
        self.name = f"clip-{weights_digest(model.state_dict())}"

    @classmethod
    def load(cls, source: str, device: torch.device | str) -> Self:
        """A folder, or the id of a model that was fetched from the Hub before.

        Raises InvalidInput if it is neither, WeightsError if a file is missing or corrupt or does not fit.
        """
        from transformers.models.clip.modeling_clip import CLIPModel

        folder = _find(source)
        model = load_strictly(CLIPModel, folder, dtype=torch.float32)
        # Without its files transformers makes a tokenizer that knows no word, and says nothing.
        if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
            raise WeightsError(f"{folder} has no tokenizer.json or vocab.json; fetch or export it again")
        return cls(load_tokenizer(folder), model.to(device))

    def features(self, images: Images) -> Tensor:
        """As in `FeatureExtractor`."""
        return self.embed_images(images)

    @torch.inference_mode()
    def embed_images(self, images: Images) -> Tensor:
        """As in `ImageTextExtractor`."""
        square = np.stack([_square(image, self.side) for image in images])
        pixels = torch.from_numpy(square).to(self._model.device)
        normal = (pixels.float() / 255 - pixels.new_tensor(_MEAN, dtype=torch.float)) / pixels.new_tensor(
            _STD, dtype=torch.float
        )
        pooled = self._model.vision_model(pixel_values=normal.permute(0, 3, 1, 2)).pooler_output
        return normalize(self._model.visual_projection(pooled)).cpu()

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """As in `ImageTextExtractor`. A text is cut to what CLIP reads, 77 tokens, as everywhere with CLIP."""
        limit = self._model.config.text_config.max_position_embeddings
        tokens = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=limit, return_tensors="pt"
        ).to(self._model.device)
        pooled = self._model.text_model(
            input_ids=tokens.input_ids, attention_mask=tokens.attention_mask
        ).pooler_output
        return normalize(self._model.text_projection(pooled)).cpu()


def _find(source: str) -> Path:
    if Path(source).is_dir():
        return Path(source)
    try:
        return Path(snapshot_download(source, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError) as error:
        raise InvalidInput(
            f"CLIP {source!r} is neither a folder nor a model in the Hub's cache; "
            "give a folder, or fetch it first (hf download ID)"
        ) from error


def _square(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    picture = Image.fromarray(image)
    short = min(picture.size)
    size = (picture.width * side // short, picture.height * side // short)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    resized = picture.resize(size, Image.Resampling.BICUBIC)
    return np.asarray(resized.crop((left, top, left + side, top + side)))
