"""Digests of encoders' folders, so that nothing is used that other weights made.

A digest follows from what the files hold. To read 9.5 GB at every start is slow, so it may be remembered beside what
the files look like from outside; whatever changes them changes that.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Iterable
from pathlib import Path

from pixart_sigma.weights.atomic import written_whole

_READ_BYTES = 2**24
_REMEMBERED = "digests"


def autoencoder_digest(folder: Path) -> str:
    """A digest of the weights in `folder/vae`."""
    return files_digest(folder, sorted((folder / "vae").glob("*.safetensors")), named=False)


def text_encoder_digest(folder: Path, memory: Path | None = None) -> str:
    """A digest of `folder/text_encoder`, weights and configuration, and of `folder/tokenizer`.

    memory: a folder, which need not exist yet, in which the digest is remembered for as long as the files keep their
    names, sizes and times. Warns (UserWarning) if it cannot be written.
    """
    weights = sorted((folder / "text_encoder").glob("*.safetensors"))
    tokenizer = sorted(path for path in (folder / "tokenizer").rglob("*") if path.is_file())
    files = [*weights, folder / "text_encoder" / "config.json", *tokenizer]
    if memory is None:
        return files_digest(folder, files)
    look = _look(files)
    known = memory / _REMEMBERED / look
    try:
        digest = known.read_text("ascii")
        if re.fullmatch("[0-9a-f]{32}", digest):
            return digest
    except (OSError, ValueError):
        pass
    digest = files_digest(folder, files)
    if _look(files) == look:  # else somebody is writing to them
        _remember(digest, known)
    return digest


def files_digest(folder: Path, files: list[Path], named: bool = True) -> str:
    """A digest of files below a folder: of their contents and, if `named`, of their names and sizes."""
    digest = hashlib.blake2b(digest_size=16)
    for path in files:
        if named:
            digest.update(f"\0{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as opened:
            while part := opened.read(_READ_BYTES):
                digest.update(part)
    return digest.hexdigest()


def _look(files: Iterable[Path]) -> str:
    """A digest of names, places, sizes and times. The time of the last change of any kind, too: `cp -p` sets the other.

    On the Hub's cache a name is a link, and its place the content's.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in files:
        state = path.stat()
        seen = (path, path.resolve(), state.st_size, state.st_mtime_ns, state.st_ctime_ns)
        digest.update("".join(f"{each}\0" for each in seen).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _remember(digest: str, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as temporary:
            temporary.write_text(digest, "ascii")
    except OSError as error:
        warnings.warn(
            f"{path.parent} cannot be written ({error.strerror or error}), so the text encoder's files are read "
            "through again next time: free some space, or choose another folder",
            stacklevel=3,
        )
