"""The caption reader task: a text encoder learns that of each thing which a caption says of it, not of another.

Legend: B batch, L caption tokens, C channels of the text encoder, K kinds.

Filling in masked pieces teaches a small encoder which words occur, and hardly whose colour a colour is, or who stands
to the left of whom. So a reader asks of each kind how many there are, their colour, size and place, of signs and of the
picture what there is to know, and finds the answers in the encoder's embeddings with one attention: as the transformer
does, which sees no order of words but what is in them. It is asked also what a short caption leaves out, and can but
guess there. The reader is thrown away. Knows nothing of images.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixart_sigma.data.drawn import FIRST_VALIDATION_SEED
from pixart_sigma.encoders.t5 import T5Encoder
from pixart_sigma.encoders.text import TextEncoder
from pixart_sigma.encoders.tokenizer import Tokenizer
from pixart_sigma.errors import RecipeError
from pixart_sigma.evaluation.judges.labels import ANSWERS, OF_KIND, OF_PICTURE, OF_SIGN, truth_labels
from pixart_sigma.pipeline.placement.processes import Processes
from pixart_sigma.training.draws import batch_indices, keyed_generator
from pixart_sigma.training.recipe.small_models import CaptionReaderRecipe
from pixart_sigma.training.tasks.captions import CaptionTable
from pixart_sigma.training.tasks.checker import verdicts
from pixart_sigma.training.tasks.small import SmallTask
from pixart_sigma.training.tasks.text_encoder import export_text_encoder
from pixart_sigma.weights.digests import text_encoder_digest
from pixart_sigma.weights.folder import TEXT_PARTS, find_pipeline
from pixart_sigma.world import dense_caption, sample_scene, short_caption
from pixart_sigma.world.scene import KINDS

_FORMS = {"short": short_caption, "dense": dense_caption}
_VALIDATION_BATCH = 128
# What a caption says of one thing and not of another.
_BOUND = ("colour", "place")
# Of a sum over all answers of a caption, so that the gradient is seldom clipped.
_LOSS_SCALE = 0.1


@dataclass(frozen=True)
class LabelledCaptions:
    """ids (B, L) int64, mask (B, L) bool, labels as of `truth_labels`, the embeddings (B, L, C) that the starting model
    gives, if some of them shall be kept, and the factor of the samples' sum.
    """

    ids: Tensor
    mask: Tensor
    labels: dict[str, Tensor]
    known: Tensor | None
    share: float


class Reader(nn.Module):
    """One learned query for each kind, one for signs and one for the picture attend to the caption."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(len(KINDS) + 2, width))
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, num_heads, batch_first=True)
        self.answers = nn.ModuleDict(
            {name: nn.Linear(width, len(answers)) for name, answers in ANSWERS.items()}
        )

    def forward(self, states: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """states (B, L, C), mask (B, L) → attribute → logits: (B, K, answers) of kinds, (B, answers) of others."""
        states = self.norm(states)
        queries = self.queries.expand(len(states), -1, -1)
        found, _ = self.attention(queries, states, states, key_padding_mask=~mask, need_weights=False)
        parts = {name: found[:, : len(KINDS)] for name in OF_KIND}
        parts |= dict.fromkeys(OF_SIGN, found[:, -2]) | dict.fromkeys(OF_PICTURE, found[:, -1])
        return {name: self.answers[name](part) for name, part in parts.items()}


class CaptionReader(nn.Module):
    """A text encoder and its reader; the loss is a weighted sum of the cross-entropies of a caption's answers, and what
    moving its embeddings costs.
    """

    def __init__(self, text_encoder: T5Encoder, recipe: CaptionReaderRecipe) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.reader = Reader(text_encoder.config.d_model, recipe.num_heads)
        self._recipe = recipe

    def forward(self, batch: LabelledCaptions) -> dict[str, Tensor]:
        """LabelledCaptions → the loss and, if embeddings shall be kept, its two parts."""
        states = self._embedded(batch)
        entropies = [
            (self._recipe.things if name in _BOUND else 1.0)
            * F.cross_entropy(values.float().flatten(0, -2), batch.labels[name].flatten(), reduction="sum")
            for name, values in self.reader(states, batch.mask).items()
        ]
        answers = _LOSS_SCALE * batch.share * torch.stack(entropies).sum()
        if batch.known is None:
            return {"loss": answers}
        distance = (states.float() - batch.known.float()).square().mean(-1) * batch.mask
        moved = batch.share * (distance.sum(1) / batch.mask.sum(1)).sum()
        return {"loss": answers + self._recipe.keep * moved, "answers": answers, "moved": moved}

    def read(self, batch: LabelledCaptions) -> dict[str, Tensor]:
        """LabelledCaptions → attribute → logits, as `Reader` gives them."""
        logits: dict[str, Tensor] = self.reader(self._embedded(batch), batch.mask)
        return logits

    def _embedded(self, batch: LabelledCaptions) -> Tensor:
        states: Tensor = self.text_encoder(input_ids=batch.ids, attention_mask=batch.mask).last_hidden_state
        return states


class CaptionReaderTask(SmallTask):
    """Short and dense captions of drawn scenes, and what is true of these."""

    def __init__(self, recipe: CaptionReaderRecipe, output: Path, processes: Processes) -> None:
        self._recipe = recipe
        self._device = processes.device
        folder = find_pipeline(recipe.start, parts=TEXT_PARTS)["text_encoder"]
        text = TextEncoder.from_pretrained(folder)
        _check_heads(recipe.num_heads, text.width)
        self._tokenizer = text.tokenizer
        self._digest = text_encoder_digest(folder)
        self._start = deepcopy(text.model).to(self._device).requires_grad_(False) if recipe.keep else None
        self._training = _captions(self._tokenizer, recipe.first_seed, recipe.num_scenes)
        self._validation = _captions(self._tokenizer, FIRST_VALIDATION_SEED, recipe.num_validation)
        torch.manual_seed(recipe.run.seed)
        text.model.requires_grad_(True)
        self.model: nn.Module = CaptionReader(text.model, recipe).to(self._device)

    @property
    def data_digest(self) -> str:
        """Of the world, and of the text encoder and tokenizer that the run started from."""
        return f"{super().data_digest} {self._digest}"

    def load(self, step: int, part: range) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """ids, mask and labels of captions of the batch of `step`, which are all short or all dense."""
        indices = self._indices(step)[part.start : part.stop]
        return self._training[self._form(step)].take(indices)

    def batch(self, loaded: tuple[Tensor, Tensor, dict[str, Tensor]], share: float) -> LabelledCaptions:
        """On the device."""
        batch = self._placed(loaded, share)
        if self._start is None:
            return batch
        with torch.no_grad():
            known = self._start(input_ids=batch.ids, attention_mask=batch.mask).last_hidden_state
        return replace(batch, known=known)

    def record_ids(self, step: int, part: range) -> list[str]:
        """Captions are known by their scenes' seeds and their form."""
        seeds = self._indices(step) + self._recipe.first_seed
        return [f"{self._form(step)}-{int(seeds[position])}" for position in part]

    def validate(self, step: int, folder: Path | None) -> dict[str, float]:
        """Of captions of unseen scenes with two things and more: the share of colours and of places told right.

        A short caption does not state all of them.
        """
        model = self.model
        assert isinstance(model, CaptionReader)
        shares: dict[str, float] = {}
        for form, captions in self._validation.items():
            right, asked = dict.fromkeys(_BOUND, 0), dict.fromkeys(_BOUND, 0)
            for indices in torch.arange(self._recipe.num_validation).split(_VALIDATION_BATCH):
                batch = self._placed(captions.take(indices), 1.0)
                several = (batch.labels["count"] > 0).sum(1, keepdim=True) > 1
                is_right, is_asked = verdicts(model.read(batch), batch.labels)
                for name in _BOUND:
                    asked[name] += int((is_asked[name] & several).sum())
                    right[name] += int((is_asked[name] & several & is_right[name]).sum())
            shares |= {f"{form}_{name}": right[name] / max(1, asked[name]) for name in _BOUND}
        return shares

    def export(
        self, folder: Path, weights: dict[str, Tensor], held_out: dict[str, float]
    ) -> dict[str, float]:
        """Write `tokenizer/` and `text_encoder/` (fp32: training goes on from here)."""
        model = T5Encoder(self.model.get_submodule("text_encoder").config)
        return export_text_encoder(model, weights, self._tokenizer, folder)

    def _placed(self, loaded: tuple[Tensor, Tensor, dict[str, Tensor]], share: float) -> LabelledCaptions:
        ids, mask = (tensor.to(self._device) for tensor in loaded[:2])
        labels = {name: column.to(self._device) for name, column in loaded[2].items()}
        return LabelledCaptions(ids, mask, labels, None, share)

    def _form(self, step: int) -> str:
        draw = torch.rand((), generator=keyed_generator(self._recipe.run.seed, step, "form"))
        return "short" if float(draw) < self._recipe.short else "dense"

    def _indices(self, step: int) -> Tensor:
        run = self._recipe.run
        return batch_indices(run.seed, step, run.batch_size, self._recipe.num_scenes)


def _check_heads(num_heads: int, width: int) -> None:
    if width % num_heads:
        raise RecipeError(
            f"num_heads {num_heads} does not divide the text encoder's width {width}; choose a divisor of it"
        )


@dataclass(frozen=True)
class _LabelledTable:
    """Captions of one form, and labels as of `truth_labels`."""

    captions: CaptionTable
    labels: dict[str, Tensor]

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """indices (B,) → ids, mask, labels."""
        ids, mask = self.captions.take(indices)
        return ids, mask, {name: column[indices] for name, column in self.labels.items()}


def _captions(tokenizer: Tokenizer, first_seed: int, num_scenes: int) -> dict[str, _LabelledTable]:
    """Form → the captions of so many scenes."""
    scenes = [sample_scene(seed) for seed in range(first_seed, first_seed + num_scenes)]
    labels = truth_labels(scenes)
    return {
        form: _LabelledTable(CaptionTable(tokenizer, [caption(scene) for scene in scenes]), labels)
        for form, caption in _FORMS.items()
    }
