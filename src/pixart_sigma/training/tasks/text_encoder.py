"""The text encoder task: a tokenizer made from captions, then a tiny T5 encoder that fills in masked pieces.

Legend: B batch, L caption tokens, V pieces.

This is only a start: the encoder goes on learning with the transformer in the base stage. Knows nothing of images.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from torch.nn import functional as F

from pixart_sigma.data.drawn import FIRST_VALIDATION_SEED
from pixart_sigma.encoders.t5 import T5Config, T5Encoder
from pixart_sigma.encoders.tokenizer import Tokenizer
from pixart_sigma.pipeline.placement.processes import Processes
from pixart_sigma.training.draws import batch_indices, keyed_generator
from pixart_sigma.training.pipeline_folder import write_text_encoder, write_tokenizer
from pixart_sigma.training.recipe.small_models import TextEncoderModelRecipe, TextEncoderRecipe
from pixart_sigma.training.tasks.captions import CaptionTable
from pixart_sigma.training.tasks.parts import part_weights
from pixart_sigma.training.tasks.small import SmallTask
from pixart_sigma.world import dense_caption, hallucinated_caption, sample_scene, short_caption

# T5 has no mask piece; its first sentinel stands for whatever is hidden.
MASK = "<extra_id_0>"
CAPTIONS = (short_caption, dense_caption, hallucinated_caption)
_VALIDATION_BATCH = 128


def train_tokenizer(captions: list[str], vocabulary_size: int) -> Tokenizer:
    """A lower-casing byte-pair tokenizer with T5's special pieces: <pad> 0, </s> 1 appended, <unk> 2.

    Byte pairs and not T5's Unigram, which on so few distinct words keeps 206 pieces and breaks most words in two or
    three: a short caption took 31 pieces and a dense one 104 instead of 12 and 32.

    All ASCII is in the alphabet, so that a word never seen falls apart into letters and is not lost.
    """
    tokenizer = Backend(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=["<pad>", "</s>", "<unk>", MASK],
        initial_alphabet=["▁", *string.ascii_lowercase, *string.digits, *string.punctuation],
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return Tokenizer(tokenizer, {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"})


def build_text_encoder(recipe: TextEncoderModelRecipe, num_pieces: int) -> T5Encoder:
    """A fresh encoder."""
    config = T5Config(
        vocab_size=num_pieces,
        d_model=recipe.width,
        d_kv=recipe.width // recipe.num_heads,
        d_ff=recipe.feed_forward_width,
        num_layers=recipe.num_layers,
        num_heads=recipe.num_heads,
    )
    model = T5Encoder(config)
    model.initialise_weights()
    return model


def export_text_encoder(
    model: T5Encoder, weights: dict[str, Tensor], tokenizer: Tokenizer, folder: Path
) -> dict[str, float]:
    """Write `tokenizer/` and `text_encoder/`, the model with its part of a task's weights, and tell the pieces."""
    model.load_state_dict(part_weights(weights, "text_encoder"))
    write_tokenizer(tokenizer, folder / "tokenizer")
    write_text_encoder(model, folder / "text_encoder")
    return {"pieces": float(len(tokenizer))}


@dataclass(frozen=True)
class HiddenPieces:
    """ids, shown ids (B, L) int64, mask, hidden (B, L) bool, and the factor of the samples' sum in the loss."""

    ids: Tensor
    shown: Tensor
    mask: Tensor
    hidden: Tensor
    share: float


class MaskedPieces(nn.Module):
    """A text encoder that fills in hidden pieces; every caption's loss is the mean over its own."""

    def __init__(self, text_encoder: T5Encoder) -> None:
        super().__init__()
        self.text_encoder = text_encoder

    def forward(self, batch: HiddenPieces) -> dict[str, Tensor]:
        """HiddenPieces → cross-entropy and accuracy."""
        model = self.text_encoder
        states = model(input_ids=batch.shown, attention_mask=batch.mask).last_hidden_state[batch.hidden]
        pieces = model.shared.weight
        # T5's embeddings have unit variance, hence the scale of its tied output layer.
        logits = (states @ pieces.T.to(states.dtype)).float() * pieces.shape[1] ** -0.5
        wanted = batch.ids[batch.hidden]
        caption = torch.nonzero(batch.hidden)[:, 0]
        weight = batch.share / batch.hidden.sum(1).float()[caption]
        loss = (weight * F.cross_entropy(logits, wanted, reduction="none")).sum()
        return {"loss": loss, "accuracy": (weight * (logits.argmax(-1) == wanted)).sum()}


class TextEncoderTask(SmallTask):
    """Masked-piece prediction over all captions of drawn scenes."""

    def __init__(self, recipe: TextEncoderRecipe, output: Path, processes: Processes) -> None:
        self._recipe = recipe
        self._device = processes.device
        captions = _captions(0, recipe.num_scenes)
        self._tokenizer = train_tokenizer(captions, recipe.model.vocabulary_size)
        self._training = CaptionTable(self._tokenizer, captions)
        self._validation = CaptionTable(
            self._tokenizer, _captions(FIRST_VALIDATION_SEED, recipe.num_validation)
        )
        torch.manual_seed(recipe.run.seed)
        model = build_text_encoder(recipe.model, len(self._tokenizer)).to(self._device)
        self.model: nn.Module = MaskedPieces(model)
        self._mask_id = self._tokenizer.backend.token_to_id(MASK)

    def load(self, step: int, part: range) -> tuple[Tensor, Tensor, Tensor]:
        """ids, mask and which pieces are hidden, of the batch of `step`."""
        run = self._recipe.run
        indices = batch_indices(run.seed, step, run.batch_size, len(self._training))
        ids, mask = self._training.take(indices)
        hidden = self._hide(mask, keyed_generator(run.seed, step, "masks"))
        return ids[part.start : part.stop], mask[part.start : part.stop], hidden[part.start : part.stop]

    def batch(self, loaded: tuple[Tensor, Tensor, Tensor], share: float) -> HiddenPieces:
        """On the device."""
        ids, mask, hidden = (tensor.to(self._device) for tensor in loaded)
        return HiddenPieces(ids, ids.masked_fill(hidden, self._mask_id), mask, hidden, share)

    def record_ids(self, step: int, part: range) -> list[str]:
        """Captions are known by their place among those of the scenes."""
        run = self._recipe.run
        indices = batch_indices(run.seed, step, run.batch_size, len(self._training))
        return [f"caption-{int(indices[position])}" for position in part]

    def validate(self, step: int, folder: Path | None) -> dict[str, float]:
        """Held-out loss and accuracy, with the same masks every time."""
        generator = keyed_generator(self._recipe.run.seed, 0, "validation masks")
        num = len(self._validation)
        sums: dict[str, float] = {}
        for indices in torch.arange(num).split(_VALIDATION_BATCH):
            ids, mask = self._validation.take(indices)
            batch = self.batch((ids, mask, self._hide(mask, generator)), 1 / num)
            for name, value in self.model(batch).items():
                sums[name] = sums.get(name, 0.0) + float(value)
        return sums

    def export(
        self, folder: Path, weights: dict[str, Tensor], held_out: dict[str, float]
    ) -> dict[str, float]:
        """Write `tokenizer/` and `text_encoder/` (fp32: training goes on from here)."""
        model = build_text_encoder(self._recipe.model, len(self._tokenizer))
        return export_text_encoder(model, weights, self._tokenizer, folder)

    def _hide(self, mask: Tensor, generator: torch.Generator) -> Tensor:
        hidden = (torch.rand(mask.shape, generator=generator) < self._recipe.masked) & mask
        # At least one a caption, or the mean over its hidden pieces would be undefined: the first.
        hidden[:, 0] |= ~hidden.any(1)
        return hidden


def _captions(first_seed: int, num_scenes: int) -> list[str]:
    scenes = [sample_scene(seed) for seed in range(first_seed, first_seed + num_scenes)]
    return [caption(scene) for scene in scenes for caption in CAPTIONS]
