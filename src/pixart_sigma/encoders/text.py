"""Text → caption embeddings, with a T5 encoder.

Legend: B prompts, L caption tokens (the longest prompt's), C channels of the encoder.
Encodes prompts as they are given: what a prompt should look like (case, cleaning) is its caller's convention.
Knows nothing of the transformer that reads the embeddings.
"""

import warnings
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from pixart_sigma.encoders.quantised_text import load_quantised
from pixart_sigma.encoders.streamed_text import StreamedT5
from pixart_sigma.encoders.t5 import PACKED_TOKENS, T5Encoder
from pixart_sigma.encoders.t5_files import load_t5
from pixart_sigma.encoders.text_holds import TextHold, check_text_hold
from pixart_sigma.encoders.tokenizer import Tokenizer
from pixart_sigma.errors import InvalidInput

SIGMA_CAPTION_LENGTH = 300  # tokens, the end token included (paper section 2.2); α has 120

_Ids = tuple[int, ...]


class TextEncoder:
    """A tokenizer and a `T5Encoder`, or in its place a `StreamedT5` or transformers' quantised `T5EncoderModel`."""

    def __init__(self, tokenizer: Tokenizer, model: Any, caption_length: int = SIGMA_CAPTION_LENGTH) -> None:
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
        held: TextHold = "resident",
        device: torch.device | str = "cpu",
    ) -> Self:
        """A pipeline folder with `text_encoder/` and `tokenizer/` → TextEncoder in eval mode on the device.

        dtype: of the embeddings, and of whatever weights are not quantised. tokenizer_folder: another pipeline
        folder, that has the tokenizer. held: how the weights are held, see `text_holds`; "streamed" is the resident
        encoder bit for bit, but has no gradients. Raises WeightsError for a missing or corrupt file, MissingDependency
        for a tokenizer or a hold that needs a package, InvalidInput for an unknown hold or one that the model's shape
        does not allow.
        """
        check_text_hold(held)
        tokenizer = Tokenizer.from_folder(Path(tokenizer_folder or folder) / "tokenizer")
        return cls(tokenizer, _load_model(Path(folder) / "text_encoder", dtype, held, device), caption_length)

    @property
    def width(self) -> int:
        """Channels of an embedding."""
        return int(self.model.config.d_model)

    @property
    def weight_bytes(self) -> int:
        """Of the weights that stay in memory, the scales of 4 bits included; those of 8 bits are few."""
        if isinstance(self.model, StreamedT5):
            return self.model.weight_bytes
        return sum(_stored_bytes(tensor) for tensor in (*self.model.parameters(), *self.model.buffers()))

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
        token_ids = self.tokenizer.encode(prompts, self.caption_length)
        for prompt, ids in zip(prompts, token_ids, strict=True):
            if len(ids) < self.caption_length:
                continue
            (whole,) = self.tokenizer.encode([prompt])
            if len(whole) > self.caption_length:
                lost = self.tokenizer.decode(whole[self.caption_length - 1 :])
                warnings.warn(
                    f"a prompt of {len(whole)} tokens is cut to {self.caption_length}; "
                    f"shorten it, or lose {_shown(lost)!r}",
                    stacklevel=2,
                )
        return token_ids

    def encode(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Prompts → (embeddings (B, L, C), zero on padding; mask (B, L) bool, True on real tokens).

        Computes real tokens only, and each distinct prompt once: prompts run together, unpadded. To rounding
        that equals padding every prompt to `caption_length`, as T5 attends to real tokens only.
        """
        (encoded,) = self.encode_groups([prompts])
        return encoded

    def encode_groups(self, groups: Sequence[Sequence[str]]) -> list[tuple[Tensor, Tensor]]:
        """Groups of prompts → what `encode` makes of each by itself; files of a streamed encoder are read once."""
        token_ids = [[tuple(ids) for ids in self.tokenize(prompts)] for prompts in groups]
        batches = [_by_length(ids) for ids in token_ids]
        outputs = iter(self._run([batch for of_group in batches for batch in of_group]))
        encoded = []
        for ids, of_group in zip(token_ids, batches, strict=True):
            rows: dict[_Ids, Tensor] = {}
            for batch in of_group:
                rows.update(zip(batch, next(outputs), strict=True))
            embeddings = torch.nn.utils.rnn.pad_sequence([rows[each] for each in ids], batch_first=True)
            lengths = torch.tensor([len(each) for each in ids])
            mask = torch.arange(embeddings.shape[1]) < lengths[:, None]
            encoded.append((embeddings, mask.to(embeddings.device)))
        return encoded

    def _run(self, batches: list[list[_Ids]]) -> list[Tensor]:
        """Batches of tokens of one length → the model's output (B, L, C) for each."""
        tokens = [torch.tensor(batch, device=self.model.device) for batch in batches]
        if isinstance(self.model, T5Encoder | StreamedT5):
            return self.model.encode_batches(tokens)
        return [self.model(input_ids=each).last_hidden_state for each in tokens]

    @torch.no_grad()
    def null_embedding(self, caption_length: int | None = None) -> Tensor:
        """The model's output for the empty caption, padded → (caption_length, C), in the model's dtype.

        Padding is masked when it is encoded, yet its outputs are kept, as the official code stores them: with
        the mask of a caption they are attended to. The first rows, one for T5, are the empty caption by
        itself. caption_length: that of this encoder, if None. Raises InvalidInput if it is shorter than those.
        """
        caption_length = self.caption_length if caption_length is None else caption_length
        (tokens,) = self.tokenizer.encode([""])
        if caption_length < len(tokens):
            raise InvalidInput(
                f"caption_length is {caption_length}; the empty caption alone has {len(tokens)} tokens "
                "(Σ has 300, α 120)"
            )
        ids = torch.full((1, caption_length), self.tokenizer.pad_token_id, device=self.model.device)
        ids[0, : len(tokens)] = torch.tensor(tokens, device=self.model.device)
        mask = torch.arange(caption_length, device=self.model.device)[None] < len(tokens)
        return self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state[0]


def _by_length(token_ids: Sequence[_Ids]) -> list[list[_Ids]]:
    """Each distinct one once, in batches of one length and of at most as many tokens as share a pass."""
    batches: list[list[_Ids]] = []
    for length, ids in groupby(sorted(set(token_ids), key=lambda ids: (len(ids), ids)), len):
        same, most = list(ids), max(1, PACKED_TOKENS // length)
        batches += [same[first : first + most] for first in range(0, len(same), most)]
    return batches


def _load_model(folder: Path, dtype: torch.dtype, held: TextHold, device: torch.device | str) -> Any:
    """A `T5Encoder`, or what is in its place."""
    if held == "streamed":
        return StreamedT5.open(folder, dtype).to(device)
    if held != "resident":
        return load_quantised(folder, held, dtype, device)
    return load_t5(folder, dtype).to(device)


def _stored_bytes(tensor: Tensor) -> int:
    """A quantised tensor's are those of what stands for it."""
    if hasattr(tensor, "__tensor_flatten__"):  # torchao's
        return sum(_stored_bytes(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0])
    scales = getattr(getattr(tensor, "quant_state", None), "absmax", None)  # bitsandbytes', of 4 bits
    return int(tensor.nbytes + (scales.nbytes if scales is not None else 0))


def _shown(text: str, longest: int = 160) -> str:
    """A text on one line; of a long one both ends."""
    text = " ".join(text.split())
    return text if len(text) <= longest else f"{text[: longest - 43]} … {text[-40:]}"
