"""The image-text task: pictures and their captions against those of the other pictures (Radford et al., 2021).

Legend: B batch, L caption pieces. Knows nothing of what is in the pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixart_sigma.evaluation.judges.image_text import (
    IMAGE_TEXT_FILE,
    MAX_PIECES,
    ImageText,
    ImageTextConfig,
    load_image_text,
    save_image_text,
)
from pixart_sigma.pipeline.placement.processes import Processes
from pixart_sigma.training.draws import keyed_generator
from pixart_sigma.training.recipe.small_models import ImageTextRecipe
from pixart_sigma.training.tasks.captions import CaptionTable
from pixart_sigma.training.tasks.judge_pictures import JudgePictures, open_pictures
from pixart_sigma.training.tasks.parts import part_weights
from pixart_sigma.training.tasks.small import SmallTask
from pixart_sigma.training.tasks.text_encoder import train_tokenizer

CAPTIONS = ("short", "dense")
_RETRIEVED_FROM = 64


@dataclass(frozen=True)
class CaptionedPictures:
    """pixels (B, 3, 128, 128) in [-1, 1], ids (B, L) int64, mask (B, L) bool, and the factor of the samples' sum."""

    pixels: Tensor
    ids: Tensor
    mask: Tensor
    share: float


class ImageTextObjective(nn.Module):
    """An image-text model and its loss: each picture has to find its caption in the batch, and each caption it."""

    def __init__(self, image_text: ImageText) -> None:
        super().__init__()
        self.image_text = image_text

    def forward(self, batch: CaptionedPictures) -> dict[str, Tensor]:
        """CaptionedPictures → the mean of the two cross-entropies, and the share of captions found."""
        images = self.image_text.image_vectors(batch.pixels)
        texts = self.image_text.text_vectors(batch.ids, batch.mask)
        with torch.autocast(images.device.type, enabled=False):
            logits = self.image_text.scale * images @ texts.T
            own = torch.arange(len(logits), device=logits.device)
            entropy = F.cross_entropy(logits, own, reduction="sum") + F.cross_entropy(
                logits.T, own, reduction="sum"
            )
        found = (logits.argmax(1) == own).sum()
        return {"loss": batch.share * entropy / 2, "top1": batch.share * found}


class ImageTextTask(SmallTask):
    """Drawn scenes, each with its short or its dense caption."""

    def __init__(self, recipe: ImageTextRecipe, output: Path, processes: Processes) -> None:
        self._recipe = recipe
        self._device = processes.device
        self._training, self._validation = open_pictures(recipe.pool, recipe.image_sizes, output, processes)
        captions = _captions(self._training)
        tokenizer = train_tokenizer(captions, recipe.model.num_pieces)
        self._tokenizer = tokenizer.backend
        self._training_captions = CaptionTable(tokenizer, captions)
        self._validation_captions = CaptionTable(tokenizer, _captions(self._validation))
        sizes = recipe.model.model_dump() | {"num_pieces": len(tokenizer)}
        self._config = ImageTextConfig(**sizes)
        torch.manual_seed(recipe.run.seed)
        model = ImageText(self._config, self._tokenizer).to(self._device)
        self.model: nn.Module = ImageTextObjective(model)

    def load(self, step: int, part: range) -> tuple[Tensor, Tensor, Tensor]:
        """Roughened pixels, and the ids and mask of one caption of each."""
        run = self._recipe.run
        indices, pixels = self._training.roughened(run, step, part)
        generator = keyed_generator(run.seed, step, "captions")
        which = torch.randint(len(CAPTIONS), (run.batch_size,), generator=generator)[part.start : part.stop]
        return pixels, *_pieces(self._training_captions, indices, which)

    def batch(self, loaded: tuple[Tensor, Tensor, Tensor], share: float) -> CaptionedPictures:
        """On the device."""
        pixels, ids, mask = (tensor.to(self._device) for tensor in loaded)
        return CaptionedPictures(pixels, ids, mask, share)

    def record_ids(self, step: int, part: range) -> list[str]:
        """Scenes are known by their seeds."""
        return self._training.ids(self._recipe.run, step, part)

    def validate(self, step: int, folder: Path | None) -> dict[str, float]:
        """The shares of unseen pictures that find their caption among 64."""
        return self._retrieval(self.model.get_submodule("image_text"))

    @torch.no_grad()
    def export(
        self, folder: Path, weights: dict[str, Tensor], held_out: dict[str, float]
    ) -> dict[str, float]:
        """Write `image_text.safetensors` and `tokenizer.json`, and report retrieval as the files give it."""
        model = ImageText(self._config, self._tokenizer)
        model.load_state_dict(part_weights(weights, "image_text"))
        save_image_text(model, folder)
        return self._retrieval(load_image_text(folder / IMAGE_TEXT_FILE, self._device))

    def _retrieval(self, model: nn.Module) -> dict[str, float]:
        """Top-1 by the kind of caption; the last pictures choose among as many as are left."""
        objective = ImageTextObjective(model)
        num = len(self._validation)
        found = {f"top1_{name}": 0.0 for name in CAPTIONS}
        for indices in torch.arange(num).split(_RETRIEVED_FROM):
            pixels = self._validation.take(indices)
            for which, name in enumerate(CAPTIONS):
                pieces = _pieces(self._validation_captions, indices, torch.full_like(indices, which))
                figures = objective(self.batch((pixels, *pieces), 1 / num))
                found[f"top1_{name}"] += float(figures["top1"])
        return found


def _captions(pictures: JudgePictures) -> list[str]:
    """Every kind of caption of every record, a record's side by side."""
    return [getattr(record, name) for record in pictures.records for name in CAPTIONS]


def _pieces(captions: CaptionTable, indices: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
    """ids and mask (B, L ≤ 160) of the captions `which` (B,) of the records `indices` (B,)."""
    ids, mask = captions.take(indices * len(CAPTIONS) + which)
    return ids[:, :MAX_PIECES], mask[:, :MAX_PIECES]
