"""Text → caption embeddings, with a T5 encoder.

Legend: B prompts, L caption tokens (the longest prompt's), C channels of the encoder.
Encodes prompts as they are given: what a prompt should look like (case, cleaning) is its caller's convention.
Knows nothing of the transformer that reads the embeddings.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from pixart_sigma.encoders.pretrained import load_strictly, load_tokenizer
from pixart_sigma.errors import InvalidInput

SIGMA_CAPTION_LENGTH = 300  # tokens, the end token included (paper section 2.2); α has 120


class TextEncoder:
    """A transformers tokenizer and a transformers `T5EncoderModel`."""

    def __init__(self, tokenizer: Any, model: Any, caption_length: int = SIGMA_CAPTION_LENGTH) -> None:
        self.tokenizer = tokenizer
        self.model = model
        self.caption_length = caption_length

    @classmethod
    def from_pretrained(
        cls,
        folder: Path | str,
        dtype: torch.dtype = torch.float32,
        *,
        tokenizer_folder: Path | str | None = None,
        caption_length: int = SIGMA_CAPTION_LENGTH,
    ) -> Self:
        """A pipeline folder with `text_encoder/` and `tokenizer/` → TextEncoder in eval mode on the CPU.

        tokenizer_folder: another pipeline folder, that has the tokenizer. Raises WeightsError for a missing
        or corrupt file, MissingDependency for a tokenizer that needs a package.
        """
        # This submodule, and not `from transformers import …`, which looks at every model's file.
        from transformers.models.t5.modeling_t5 import T5EncoderModel

        tokenizer = load_tokenizer(Path(tokenizer_folder or folder) / "tokenizer")
        model = load_strictly(T5EncoderModel, Path(folder) / "text_encoder", dtype=dtype)
        return cls(tokenizer, model, caption_length)

    def with_caption_length(self, caption_length: int) -> Self:
        """The same tokenizer and model, not copied, for captions of at most another length."""
        return type(self)(self.tokenizer, self.model, caption_length)

    def to(self, device: torch.device | str) -> Self:
        """Moves the model."""
        self.model.to(device)
        return self

    def tokenize(self, prompts: Sequence[str]) -> list[list[int]]:
        """Prompts → the token ids of each, the end token included, at most `caption_length`, unpadded.

        Warns (UserWarning) about a prompt that is cut, and says what of it is lost.
        """
        token_ids: list[list[int]] = self.tokenizer(
            list(prompts), truncation=True, max_length=self.caption_length
        ).input_ids
        for prompt, ids in zip(prompts, token_ids, strict=True):
            if len(ids) < self.caption_length:
                continue
            whole = self.tokenizer(prompt, verbose=False).input_ids
            if len(whole) > self.caption_length:
                lost = self.tokenizer.decode(whole[self.caption_length - 1 :], skip_special_tokens=True)
                warnings.warn(
                    f"a prompt of {len(whole)} tokens is cut to {self.caption_length}; "
                    f"shorten it, or lose {_shown(lost)!r}",
                    stacklevel=2,
                )
        return token_ids

    def encode(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Prompts → (embeddings (B, L, C), zero on padding; mask (B, L) bool, True on real tokens).

        Computes real tokens only, and each distinct prompt once: prompts of one length run together,
        unpadded. To rounding that equals padding every prompt to `caption_length`, as T5 attends to real
        tokens only.
        """
        token_ids = [tuple(ids) for ids in self.tokenize(prompts)]
        lengths = torch.tensor([len(ids) for ids in token_ids])
        encoded: dict[tuple[int, ...], Tensor] = {}
        for length in sorted(set(lengths.tolist())):
            distinct = sorted({ids for ids in token_ids if len(ids) == length})
            batch = torch.tensor(distinct, device=self.model.device)
            encoded.update(zip(distinct, self.model(input_ids=batch).last_hidden_state, strict=True))
        embeddings = torch.nn.utils.rnn.pad_sequence([encoded[ids] for ids in token_ids], batch_first=True)
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        return embeddings, mask.to(embeddings.device)

    @torch.no_grad()
    def null_embedding(self, caption_length: int | None = None) -> Tensor:
        """The model's output for the empty caption, padded → (caption_length, C), in the model's dtype.

        Padding is masked when it is encoded, yet its outputs are kept, as the official code stores them: with
        the mask of a caption they are attended to. The first rows, one for T5, are the empty caption by
        itself. caption_length: that of this encoder, if None. Raises InvalidInput if it is shorter than those.
        """
        caption_length = self.caption_length if caption_length is None else caption_length
        tokens: list[int] = self.tokenizer("").input_ids
        if caption_length < len(tokens):
            raise InvalidInput(
                f"caption_length is {caption_length}; the empty caption alone has {len(tokens)} tokens "
                "(Σ has 300, α 120)"
            )
        ids = torch.full((1, caption_length), int(self.tokenizer.pad_token_id), device=self.model.device)
        ids[0, : len(tokens)] = torch.tensor(tokens, device=self.model.device)
        mask = torch.arange(caption_length, device=self.model.device)[None] < len(tokens)
        return self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state[0]


def _shown(text: str, longest: int = 160) -> str:
    """A text on one line; of a long one both ends."""
    text = " ".join(text.split())
    return text if len(text) <= longest else f"{text[: longest - 43]} … {text[-40:]}"
