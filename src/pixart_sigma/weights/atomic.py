"""Files that appear whole or not at all.

Knows nothing of what is written.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pixart_sigma.errors import InvalidInput


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """`with written_whole(path) as temporary:` write to `temporary`; it takes its place at `path` when the
    block ends.

    After an exception `path` is as it was, and nothing is left beside it.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes private files; the user's umask shall decide, as for any other file.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def folder_written_whole(path: Path) -> Iterator[Path]:
    """As `written_whole`, for a folder: the one yielded is empty, and takes the place of whatever is at `path`."""
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary
        umask = _umask()
        for each in (temporary, *temporary.rglob("*")):  # files, too: safetensors makes private ones
            each.chmod((0o777 if each.is_dir() else 0o666) & ~umask)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as old:
            kept = Path(old) / path.name
            try:
                if path.exists():  # a folder with content cannot be replaced in one step
                    path.replace(kept)
                temporary.replace(path)
            except BaseException:  # an interruption too: what is in `old` would be lost
                if kept.exists() and not path.exists():
                    kept.replace(path)
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def check_output_folder(path: Path) -> None:
    """Raises InvalidInput unless `path` is a folder, or one can be made there."""
    if path.exists() and not path.is_dir():
        raise InvalidInput(f"output {path} is a file; name a folder")
    if not path.exists() and not path.parent.is_dir():
        raise InvalidInput(f"output folder {path.parent} does not exist; create it first")


def check_writable(path: Path) -> None:
    """Raises InvalidInput unless a file can be written at `path`; leaves nothing there."""
    if path.is_dir():
        raise InvalidInput(f"output {path} is a folder; name a file in it")
    if not path.parent.is_dir():
        raise InvalidInput(f"output folder {path.parent} does not exist; create it first")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InvalidInput(
            f"output folder {path.parent} is not writable ({error.strerror}); choose another"
        ) from error
