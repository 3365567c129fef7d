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

from pixart_sigma.encoders.pretrained import first_line, load_strictly
from pixart_sigma.errors import MissingDependency, WeightsError

SIGMA_CAPTION_LENGTH = 300  # tokens, the end token included (paper section 2.2); α has 120


class TextEncoder:
    """A transformers tokenizer and a transformers `T5EncoderModel`."""

    def __init__(self, tokenizer: Any, model: Any, caption_length: int = SIGMA_CAPTION_LENGTH) -> None:
        self.tokenizer = tokenizer
        self.model = model
        self.caption_length = caption_length

    @classmethod
    def from_pretrained(cls, folder: Path | str, dtype: torch.dtype = torch.float32) -> Self:
        """A pipeline folder with `tokenizer/` and `text_encoder/` → TextEncoder in eval mode on the CPU.

        Raises WeightsError for a missing or corrupt file, MissingDependency for a tokenizer that needs a
        package.
        """
        # These submodules, and not `from transformers import …`, which looks at every model's file.
        from transformers.models.auto.tokenization_auto import AutoTokenizer
        from transformers.models.t5.modeling_t5 import T5EncoderModel

        folder = Path(folder)
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        except ImportError as error:
            raise MissingDependency(
                f"the tokenizer in {folder} needs a package that is missing ({first_line(error)}); install it with pip"
            ) from error
        except (
            Exception
        ) as error:  # a broken tokenizer file raises nearly anything, a Rust panic's bare Exception too
            raise WeightsError(
                f"{folder / 'tokenizer'} cannot be loaded ({first_line(error)}); fetch or export it again"
            ) from error
        return cls(tokenizer, load_strictly(T5EncoderModel, folder / "text_encoder", dtype=dtype))

    def to(self, device: torch.device | str) -> Self:
        """Moves the model."""
        self.model.to(device)
        return self

    def tokenize(self, prompts: Sequence[str]) -> list[list[int]]:
        """Prompts → the token ids of each, the end token included, at most `caption_length`, unpadded.

        Warns (UserWarning) about a prompt that is cut.
        """
        token_ids: list[list[int]] = self.tokenizer(
            list(prompts), truncation=True, max_length=self.caption_length
        ).input_ids
        for prompt, ids in zip(prompts, token_ids, strict=True):
            if len(ids) < self.caption_length:
                continue
            length = len(self.tokenizer(prompt, verbose=False).input_ids)
            if length > self.caption_length:
                warnings.warn(
                    f"a prompt of {length} tokens is cut to {self.caption_length}; shorten it: {prompt[:40]}",
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
