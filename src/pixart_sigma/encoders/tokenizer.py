"""Text → token ids, as T5 reads them.

A tokenizer's files that say all themselves (tokenizer.json with the generic class) are read by `tokenizers` alone;
others, such as T5's own sentencepiece model, by transformers, whose import takes a second. Knows nothing of models.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tokenizers import Tokenizer as Backend

from pixart_sigma.encoders.pretrained import first_line, load_tokenizer
from pixart_sigma.errors import WeightsError

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
_GENERIC = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Classes of transformers that have no way of their own with what tokenizer.json says."""
_NAMES = ("pad_token", "eos_token", "unk_token")


class Tokenizer:
    """A `tokenizers.Tokenizer` that ends every text with the end token, and which of its tokens have which role."""

    def __init__(self, backend: Backend, roles: Mapping[str, str]) -> None:
        """roles: pad_token, eos_token and perhaps unk_token, as they are written. Raises ValueError if one lacks."""
        backend.no_padding()  # which a file may ask for
        self.backend = backend
        self.roles = {name: roles[name] for name in _NAMES if name in roles}
        self.pad_token_id = self._id("pad_token")
        self.eos_token_id = self._id("eos_token")

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """A folder of tokenizer files → Tokenizer. Code that lies beside them is never run.

        Raises WeightsError for a missing or corrupt file and for a tokenizer that is code or has no padding or end,
        MissingDependency for one that needs a package.
        """
        try:
            if reads_by_itself(folder):
                return cls(
                    Backend.from_file(str(folder / TOKENIZER_FILE)), _roles(_read(folder / CONFIG_FILE))
                )
        except Exception as error:  # a broken file raises nearly anything, a Rust panic's bare Exception too
            raise WeightsError(
                f"the tokenizer in {folder} cannot be loaded ({first_line(error)}); fetch or export it again"
            ) from error
        loaded = load_tokenizer(folder)
        try:
            roles = {name: getattr(loaded, name) for name in _NAMES}
            return cls(loaded.backend_tokenizer, {name: str(token) for name, token in roles.items() if token})
        except (AttributeError, ValueError) as error:
            raise WeightsError(
                f"the tokenizer in {folder} is none of T5's ({first_line(error)}); name a folder with T5's"
            ) from error

    def __len__(self) -> int:
        """Tokens that it knows."""
        return int(self.backend.get_vocab_size())

    def encode(self, texts: Sequence[str], longest: int | None = None) -> list[list[int]]:
        """Texts → the ids of each, the end token included, unpadded; cut to `longest` of them, if given."""
        if longest is None:
            self.backend.no_truncation()
        else:
            self.backend.enable_truncation(longest)
        return [encoding.ids for encoding in self.backend.encode_batch(list(texts))]

    def decode(self, ids: Sequence[int]) -> str:
        """Ids → their text, without tokens that have a role."""
        return str(self.backend.decode(list(ids), skip_special_tokens=True))

    def files(self) -> dict[str, str]:
        """The names and contents of the files that say all there is to it, for transformers too."""
        self.backend.no_truncation()
        config = {"tokenizer_class": "PreTrainedTokenizerFast", **self.roles}
        return {
            TOKENIZER_FILE: str(self.backend.to_str(pretty=True)),
            CONFIG_FILE: json.dumps(config, indent=2, sort_keys=True) + "\n",
        }

    def _id(self, role: str) -> int:
        token = self.roles.get(role)
        found = None if token is None else self.backend.token_to_id(token)
        if found is None:
            raise ValueError(f"{role} is {token!r}, which is not among its tokens")
        return int(found)


def reads_by_itself(folder: Path) -> bool:
    """Whether a folder's tokenizer is read without transformers; what is broken is left to it to say so."""
    if not (folder / TOKENIZER_FILE).is_file():
        return False
    try:
        config = _read(folder / CONFIG_FILE)
    except (OSError, TypeError, ValueError):
        return False
    return config.get("tokenizer_class") in _GENERIC and {"pad_token", "eos_token"} <= _roles(config).keys()


def _read(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text("utf-8"))
    if not isinstance(content, dict):
        raise TypeError(f"{path.name} is no JSON object")
    return content


def _roles(config: Mapping[str, Any]) -> dict[str, str]:
    """A token is written as it is, or as an object with its content."""
    found = {}
    for name in _NAMES:
        token = config.get(name)
        if isinstance(token, dict):
            token = token.get("content")
        if isinstance(token, str):
            found[name] = token
    return found
