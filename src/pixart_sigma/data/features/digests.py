"""Digests of encoders' folders, so that no feature is read that other weights made."""

from __future__ import annotations

import hashlib
from pathlib import Path

_READ_BYTES = 2**24


def autoencoder_digest(folder: Path) -> str:
    """A digest of the weights in `folder/vae`."""
    return files_digest(folder, sorted((folder / "vae").glob("*.safetensors")), named=False)


def text_encoder_digest(folder: Path) -> str:
    """A digest of `folder/text_encoder`, weights and configuration, and of `folder/tokenizer`."""
    weights = sorted((folder / "text_encoder").glob("*.safetensors"))
    tokenizer = sorted(path for path in (folder / "tokenizer").rglob("*") if path.is_file())
    return files_digest(folder, [*weights, folder / "text_encoder" / "config.json", *tokenizer])


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
