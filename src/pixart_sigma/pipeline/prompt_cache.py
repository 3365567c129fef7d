"""Embeddings of prompts, kept on disk: a prompt is encoded once, and where all are known no text encoder is loaded.

    FOLDER/1a2b3c4d/5e6f7a8b.safetensors   embedding (L, C), unpadded, as it was computed; a folder per text encoder
    FOLDER/digests/9c0d1e2f                which text encoder files of these sizes and times are, see weights/digests.py

Every file says which text encoder, precision, caption length and text it is for, by a digest of them all, and
whether it is whole; one that says something else is made again. Nothing is ever deleted.
Knows nothing of profiles: a prompt is given as the text encoder shall see it.

Legend: B prompts, L caption tokens (the longest prompt's), C channels of the text encoder.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor

from pixart_sigma.encoders.text import TextEncoder
from pixart_sigma.encoders.tokenizer import Tokenizer
from pixart_sigma.weights.atomic import written_whole

_LAYOUT = 1  # of the files; another is another key
_EMBEDDING = "embedding"

Kind = Literal["caption", "null"]


class CachedTextEncoder:
    """Encodes as a `TextEncoder` does, but for prompts that are on disk; computes no gradients.

    A known embedding is the one that was stored: to rounding what would be computed now, since that depends on the
    device and on the prompts that are encoded together.
    """

    def __init__(
        self,
        folder: Path,
        digest: str,
        precision: str,
        caption_length: int,
        width: int,
        load: Callable[[], TextEncoder],
        device: torch.device | str = "cpu",
    ) -> None:
        """folder: need not exist yet. digest: of the text encoder's and tokenizer's files. precision: what else the
        values depend on, "bfloat16" or "bfloat16 nf4", say. width: C. load: called for the first prompt that is not
        known. device: of what is returned.
        """
        self.caption_length = caption_length
        self.width = width
        self.device = torch.device(device)
        self._folder = folder
        self._digest = digest
        self._precision = precision
        self._load = load
        self._text_encoder: TextEncoder | None = None

    def to(self, device: torch.device | str) -> Self:
        """Moves the text encoder, if it is loaded."""
        self.device = torch.device(device)
        if self._text_encoder is not None:
            self._text_encoder.to(device)
        return self

    @property
    def weight_bytes(self) -> int:
        """As `TextEncoder.weight_bytes`; nothing as long as none is loaded."""
        return 0 if self._text_encoder is None else self._text_encoder.weight_bytes

    @property
    def model(self) -> Any:
        """The text encoder's, loaded for whoever asks."""
        return self._loaded().model

    @property
    def tokenizer(self) -> Tokenizer:
        """The text encoder's, loaded for whoever asks."""
        return self._loaded().tokenizer

    def with_caption_length(self, caption_length: int) -> CachedTextEncoder:
        """The same for captions of at most another length, which are other files; the text encoder is shared."""
        return CachedTextEncoder(
            self._folder,
            self._digest,
            self._precision,
            caption_length,
            self.width,
            self._loaded,
            self.device,
        )

    def knows(self, prompts: Iterable[str], *, null: bool = False) -> bool:
        """Whether all of these, and the null embedding if asked, can be had without the text encoder."""
        return all(self._read("caption", prompt) is not None for prompt in set(prompts)) and (
            not null or self._read("null", "") is not None
        )

    def encode(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """As `TextEncoder.encode`: (embeddings (B, L, C), zero on padding; mask (B, L) bool).

        Warns (UserWarning) of prompts that are cut, known ones too, and of a folder that cannot be written.
        """
        (encoded,) = self.encode_groups([prompts])
        return encoded

    @torch.no_grad()
    def encode_groups(self, groups: Sequence[Sequence[str]]) -> list[tuple[Tensor, Tensor]]:
        """As `TextEncoder.encode_groups`: what `encode` makes of each group."""
        known: dict[str, Tensor] = {}
        missing: list[list[str]] = []
        for prompt in dict.fromkeys(prompt for prompts in groups for prompt in prompts):
            stored = self._read("caption", prompt)
            if stored is not None:
                known[prompt], warning = stored
                if warning:
                    warnings.warn(warning, stacklevel=2)
        asked = set(known)
        for prompts in groups:
            missing.append([prompt for prompt in dict.fromkeys(prompts) if prompt not in asked])
            asked.update(prompts)
        known |= self._encode([prompts for prompts in missing if prompts])
        return [self._padded([known[prompt].to(self.device) for prompt in prompts]) for prompts in groups]

    @torch.no_grad()
    def null_embedding(self) -> Tensor:
        """As `TextEncoder.null_embedding`: (caption_length, C)."""
        stored = self._read("null", "")
        if stored is not None:
            return stored[0].to(self.device)
        embedding = self._loaded().null_embedding(self.caption_length)
        self._write("null", {"": (embedding, "")})
        return embedding.to(self.device)

    def _loaded(self) -> TextEncoder:
        if self._text_encoder is None:
            self._text_encoder = self._load().with_caption_length(self.caption_length).to(self.device)
        return self._text_encoder

    def _encode(self, groups: list[list[str]]) -> dict[str, Tensor]:
        """Prompts that are not known → the embedding (L, C) of each, which is kept."""
        if not groups:
            return {}
        text_encoder = self._loaded()
        fresh = {
            prompt: row[real]
            for prompts, encoded in zip(groups, text_encoder.encode_groups(groups), strict=True)
            for prompt, row, real in zip(prompts, *encoded, strict=True)
        }
        self._write("caption", {p: (row, _cut_warning(text_encoder, p)) for p, row in fresh.items()})
        return fresh

    def _padded(self, rows: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Embeddings (L, C) of several lengths → as `encode` returns them."""
        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return padded, torch.arange(padded.shape[1], device=self.device) < lengths[:, None]

    def _key(self, kind: Kind, text: str) -> str:
        content = [_LAYOUT, self._digest, self._precision, self.caption_length, kind, text]
        return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()

    def _path(self, key: str) -> Path:
        return self._folder / self._digest / f"{key}.safetensors"

    def _read(self, kind: Kind, text: str) -> tuple[Tensor, str] | None:
        """→ the embedding and what was warned of, or None if it is not there, not whole or not this one."""
        key = self._key(kind, text)
        try:
            with safe_open(self._path(key), framework="pt") as file:
                metadata = file.metadata() or {}
                embedding = file.get_tensor(_EMBEDDING).clone()  # and not mapped: the file may be replaced
        except Exception:  # safetensors raises nearly everything for broken bytes; such a file is made again
            return None
        warning = metadata.get("warning", "")
        whole = metadata.get("key") == key and metadata.get("checksum") == _checksum(embedding, warning)
        return (embedding, warning) if whole else None

    def _write(self, kind: Kind, embeddings: dict[str, tuple[Tensor, str]]) -> None:
        """Texts and their embeddings and warnings → files. One that fails is a warning, and the last one tried."""
        for text, (embedding, warning) in embeddings.items():
            stored = embedding.detach().cpu().contiguous()
            key = self._key(kind, text)
            metadata = {
                "key": key,
                "text_encoder": self._digest,
                "precision": self._precision,
                "caption_length": str(self.caption_length),
                "warning": warning,
                "checksum": _checksum(stored, warning),
            }
            path = self._path(key)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with written_whole(path) as temporary:
                    temporary.write_bytes(safetensors.torch.save({_EMBEDDING: stored}, metadata))
            except OSError as error:
                warnings.warn(
                    f"encoded prompts cannot be kept in {self._folder} ({error.strerror or error}); they are encoded "
                    "again next time: free some space, or choose another folder",
                    stacklevel=3,
                )
                return


def _cut_warning(text_encoder: TextEncoder, prompt: str) -> str:
    """What `TextEncoder.tokenize` warns of, without warning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        text_encoder.tokenize([prompt])
    return "; ".join(str(each.message) for each in caught)


def _checksum(embedding: Tensor, warning: str) -> str:
    """Of what a file holds; its header alone would not show a byte that has changed."""
    digest = hashlib.blake2b(f"{embedding.dtype} {tuple(embedding.shape)} {warning}".encode(), digest_size=16)
    digest.update(embedding.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
