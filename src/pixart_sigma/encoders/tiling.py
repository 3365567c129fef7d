"""How an autoencoder keeps within a limit on memory, and where what does not fit may lie meanwhile.

Knows no tensors, so that it can be imported before them.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from pixart_sigma.errors import InvalidInput

TilingMethod = Literal["exact", "fast"]
"""exact: layer by layer over strips, equal to the whole. fast: blended tiles, which shift tones and leave seams."""

MIB = 2**20

_LARGE_TEMPORARY = Path("/var/tmp")
"""For temporary files that are large or to outlive a restart, so on a disk (hier(7))."""

_MOUNTS = Path("/proc/self/mountinfo")
_MEMORY_FILE_SYSTEMS = frozenset({"tmpfs", "ramfs", "devtmpfs", "hugetlbfs"})


@dataclass(frozen=True)
class Tiling:
    """A picture is decoded and encoded in parts. Raises InvalidInput for an unknown method and a useless spill.

    limit_bytes: memory above the weights, of the device that the model is on; None: as much as it takes. spill: a
    folder for activations that do not fit in it, if exact; None keeps all of them in memory.
    """

    method: TilingMethod = "exact"
    limit_bytes: int | None = None
    spill: Path | None = None

    def __post_init__(self) -> None:
        if self.method not in get_args(TilingMethod):
            raise InvalidInput(f"unknown tiling {self.method!r}; one of {', '.join(get_args(TilingMethod))}")
        if self.spill is not None and (self.method == "fast" or self.limit_bytes is None):
            raise InvalidInput(
                "a folder for temporary files is of use to exact tiling with a limit only; leave spill out"
            )


def find_spill_folder(num_bytes: int = 0) -> Path:
    """The first usual place for temporary files that is on a disk, and not in memory, with room for num_bytes.

    The places: the folder that TMPDIR or the system names, /var/tmp, the user's cache. Raises InvalidInput if none
    will do.
    """
    in_memory = _memory_devices()
    for folder in _usual_places():
        if (
            folder.is_dir()
            and os.access(folder, os.W_OK)
            and folder.stat().st_dev not in in_memory
            and _free_bytes(folder) >= num_bytes
        ):
            return folder
    raise InvalidInput(
        f"no usual folder for temporary files is on a disk with {-(-num_bytes // MIB)} MiB left; "
        "set TMPDIR to one that is, or raise the memory limit"
    )


def _usual_places() -> Iterator[Path]:
    with suppress(FileNotFoundError):  # where none of the folders that it knows can be written to
        yield Path(tempfile.gettempdir())
    yield _LARGE_TEMPORARY
    yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _memory_devices() -> frozenset[int]:
    """Numbers (st_dev) of the file systems whose files are memory; none are known where there is no /proc."""
    try:
        lines = _MOUNTS.read_text("utf-8", "replace").splitlines()
    except OSError:
        return frozenset()
    devices = set()
    for line in lines:
        # proc(5): "36 35 98:0 /root /mount options - ext4 …"
        mount, _, source = line.partition(" - ")
        if source.split(" ", 1)[0] in _MEMORY_FILE_SYSTEMS:
            major, minor = mount.split(" ")[2].split(":")
            devices.add(os.makedev(int(major), int(minor)))
    return frozenset(devices)
