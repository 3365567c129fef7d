"""The image-text model: pictures and texts as vectors whose cosine says how well they fit (Radford et al., 2021).

Legend: N, B images or texts, L pieces of a text. Knows nothing of metrics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from pixart_sigma.errors import WeightsError
from pixart_sigma.evaluation.judges.backbone import NORM_GROUPS, Backbone, judge_pixels
from pixart_sigma.evaluation.judges.file import judge_file, load_judge, save_judge
from pixart_sigma.weights.atomic import written_whole

IMAGE_TEXT_FILE = "image_text.safetensors"
TOKENIZER_FILE = "tokenizer.json"
WIDTH = 256
"""Of features and embeddings."""
MAX_PIECES = 160
"""Longer texts are cut."""
_MAX_SCALE = 100.0
_BATCH = 64


@dataclass(frozen=True)
class ImageTextConfig:
    """The backbone's channels and blocks (see `Backbone`), and the text transformer's size."""

    channels: Sequence[int] = (48, 96, 160)
    blocks: Sequence[int] = (1, 1, 1)
    num_pieces: int = 800
    text_width: int = 128
    text_layers: int = 2
    text_heads: int = 4


class ImageText(nn.Module):
    """A convolutional image tower and a text transformer over `tokenizer`'s pieces (a `tokenizers.Tokenizer`).

    Its padding is piece 0.
    """

    def __init__(self, config: ImageTextConfig, tokenizer: Any) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self.backbone = Backbone(config.channels, config.blocks)
        self.image_norm = nn.GroupNorm(NORM_GROUPS, config.channels[-1])
        self.image_widen = nn.Conv2d(config.channels[-1], WIDTH, 1)
        self.image_projection = nn.Linear(WIDTH, WIDTH)
        width = config.text_width
        self.pieces = nn.Embedding(config.num_pieces, width)
        self.positions = nn.Parameter(torch.randn(MAX_PIECES, width))
        layer = nn.TransformerEncoderLayer(
            width,
            config.text_heads,
            4 * width,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.text = nn.TransformerEncoder(layer, config.text_layers, enable_nested_tensor=False)
        self.text_norm = nn.LayerNorm(width)
        self.text_projection = nn.Linear(width, WIDTH)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    @property
    def scale(self) -> Tensor:
        """The inverse of the learned temperature, by which cosines are multiplied to give logits."""
        return self.log_scale.exp().clamp(max=_MAX_SCALE)

    def features(self, pixels: Tensor) -> Tensor:
        """pixels (B, 3, 128, 128) in [-1, 1] → (B, 256), the mean over the map, before the projection."""
        seen = F.relu(self.image_norm(self.backbone(pixels)))
        return F.gelu(self.image_widen(seen)).mean((2, 3))

    def image_vectors(self, pixels: Tensor) -> Tensor:
        """pixels (B, 3, 128, 128) → unit vectors (B, 256) fp32."""
        return F.normalize(self.image_projection(self.features(pixels)).float(), dim=-1)

    def text_vectors(self, ids: Tensor, mask: Tensor) -> Tensor:
        """ids (B, L) int64, mask (B, L) bool, True on pieces that are there → unit vectors (B, 256) fp32."""
        states = self.pieces(ids) + self.positions[: ids.shape[1]]
        states = self.text(states, src_key_padding_mask=~mask)
        kept = mask[..., None].to(states.dtype)
        mean = (states * kept).sum(1) / kept.sum(1)
        return F.normalize(self.text_projection(self.text_norm(mean)).float(), dim=-1)

    def image_features(self, images: NDArray[np.uint8]) -> Tensor:
        """images (N, H, W, 3) uint8 of any size → features (N, 256) fp32 on the CPU, for FID and CMMD."""
        return self._of_images(self.features, images)

    def embed_images(self, images: NDArray[np.uint8]) -> Tensor:
        """images (N, H, W, 3) uint8 of any size → unit vectors (N, 256) fp32 on the CPU."""
        return self._of_images(self.image_vectors, images)

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Texts → unit vectors (N, 256) fp32 on the CPU; a text of more than 160 pieces is cut."""
        device = self.log_scale.device
        vectors = [torch.empty(0, WIDTH)]
        for first in range(0, len(texts), _BATCH):
            encodings = self.tokenizer.encode_batch(list(texts[first : first + _BATCH]))
            rows = [torch.tensor(encoding.ids[:MAX_PIECES]) for encoding in encodings]
            lengths = torch.tensor([len(row) for row in rows])
            ids = nn.utils.rnn.pad_sequence(rows, batch_first=True)
            mask = torch.arange(ids.shape[1]) < lengths[:, None]
            vectors.append(self.text_vectors(ids.to(device), mask.to(device)).cpu())
        return torch.cat(vectors)

    @torch.inference_mode()
    def _of_images(self, compute: Callable[[Tensor], Tensor], images: NDArray[np.uint8]) -> Tensor:
        device = self.log_scale.device
        parts = [torch.empty(0, WIDTH)]
        for first in range(0, len(images), _BATCH):
            parts.append(compute(judge_pixels(images[first : first + _BATCH]).to(device)).float().cpu())
        return torch.cat(parts)


def save_image_text(model: ImageText, folder: Path) -> None:
    """Write `image_text.safetensors` (bf16) and `tokenizer.json`."""
    save_judge(model, {"config": asdict(model.config)}, folder / IMAGE_TEXT_FILE)
    with written_whole(folder / TOKENIZER_FILE) as temporary:
        temporary.write_text(model.tokenizer.to_str(pretty=True), "utf-8")


def load_image_text(path: Path | None = None, device: torch.device | str = "cpu") -> ImageText:
    """The model of a .safetensors file, its tokenizer beside it, or of the package, in fp32 and eval mode.

    Raises WeightsError if one of the two is missing or corrupt.
    """
    from tokenizers import Tokenizer

    file = path or judge_file(IMAGE_TEXT_FILE)
    beside = file.with_name(TOKENIZER_FILE)

    def build(description: dict[str, Any]) -> ImageText:
        try:
            tokenizer = Tokenizer.from_file(str(beside))
        except Exception as error:  # the library, in Rust, raises nothing more specific
            raise WeightsError(f"tokenizer {beside} is missing or corrupt; train the judge again") from error
        return ImageText(ImageTextConfig(**description["config"]), tokenizer)

    return load_judge(file, build).to(device)
