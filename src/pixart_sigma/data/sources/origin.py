"""What every origin of records gives, and how its candidates become records or are skipped with a reason.

Knows nothing of tables.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, TypeVar

from pixart_sigma.data.images import CorruptImage
from pixart_sigma.data.record import Caption, NoCaption, Record, record_from_bytes

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".avif"}

Kind = Literal["corrupt", "no caption", "duplicate key"]
In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True)
class Candidate:
    """A picture that may become a record. Both functions are called once, in a thread.

    `image` raises OSError or CorruptImage if there is no picture, `captions` NoCaption or ValueError if they cannot
    be read; both are reasons to skip it.
    """

    key: str
    image: Callable[[], bytes]
    captions: Callable[[], Iterable[Caption]]


@dataclass(frozen=True)
class Skipped:
    """A candidate that became no record."""

    key: str
    kind: Kind
    reason: str


@dataclass(frozen=True)
class Origin:
    """Candidates in an order that stays, and what says that they are the same as before.

    `candidates(known)` may leave out those whose keys are known, if that spares work.
    """

    fingerprint: dict[str, str]
    num_candidates: int
    candidates: Callable[[Container[str]], Iterator[Candidate]]


def records(origin: Origin, known: Container[str] = frozenset()) -> Iterator[Record | Skipped]:
    """An origin's records in order, and those skipped; candidates whose keys are known are neither.

    Decoded in as many threads as there are cores.
    """
    return in_threads(_examine, _new(origin.candidates(known), known))


def in_threads(function: Callable[[In], Out], items: Iterable[In]) -> Iterator[Out]:
    """`map` in as many threads as there are cores, in order, and a few items ahead."""
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[Future[Out]] = deque()
        for item in items:
            ahead.append(pool.submit(function, item))
            if len(ahead) > 2 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def files_fingerprint(kind: str, root: Path, names: Iterable[str], **settings: str) -> dict[str, str]:
    """Changes with the sizes and times of the files of these names in `root`, and with the settings."""
    digest = hashlib.blake2b(digest_size=16)
    for name in names:
        try:
            status = (root / name).stat()
            digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        except OSError:
            digest.update(f"{name}\0missing\n".encode())
    return {"kind": kind, "path": str(root.resolve()), "files": digest.hexdigest(), **settings}


def read_inside(folder: Path, name: str) -> bytes:
    """The file that a list names relative to its folder. Raises CorruptImage for one outside it or missing."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise CorruptImage(f"{name} leaves the folder {folder}")
    try:
        return (folder / path).read_bytes()
    except OSError as error:
        raise CorruptImage(f"{folder / path} cannot be read ({error.strerror})") from error


def wanted_sources(sources: tuple[str, ...] | None) -> dict[str, str]:
    """The choice of caption sources, as a setting of a fingerprint."""
    return {} if sources is None else {"sources": ",".join(sources)}


def _new(candidates: Iterator[Candidate], known: Container[str]) -> Iterator[Candidate | Skipped]:
    seen: set[str] = set()
    for candidate in candidates:
        if candidate.key in seen:
            yield Skipped(candidate.key, "duplicate key", "another picture has this key")
        elif candidate.key not in known:
            yield candidate
        seen.add(candidate.key)


def _examine(candidate: Candidate | Skipped) -> Record | Skipped:
    if isinstance(candidate, Skipped):
        return candidate
    try:
        captions = list(candidate.captions())
    except (NoCaption, ValueError, OSError) as error:
        return Skipped(candidate.key, "no caption", str(error))
    try:
        return record_from_bytes(candidate.key, candidate.image(), captions)
    except NoCaption as error:
        return Skipped(candidate.key, "no caption", str(error))
    except (CorruptImage, OSError) as error:
        return Skipped(candidate.key, "corrupt", str(error))
