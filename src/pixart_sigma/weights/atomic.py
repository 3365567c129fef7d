"""Files that appear whole or not at all.

Knows nothing of what is written.
"""

import os
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
        umask = os.umask(
            0
        )  # mkstemp makes private files; the user's umask shall decide, as for any other file
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
