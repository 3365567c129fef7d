"""Where an activation lives as a whole: in memory, or in a temporary file.

Legend: H, W pixels of the activation, C channels. A plane is (H, W, C): a band of rows is contiguous, in memory as
in a file, and torch convolves it as it lies (its channels-last format) without a copy.
Knows nothing of what the values mean.

A file is read and written, not mapped: a full disk is then an error and no bus error, and what was read stays out
of the process's own memory. The file has no name, so nothing is left of it, however the process ends.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from pixart_sigma.errors import InvalidInput


class Plane(Protocol):
    """An activation (height, width, C), read and written in bands of rows."""

    height: int
    width: int

    def read(self, first: int, into: Tensor) -> None:
        """Copies rows first, first + 1, … into a tensor (rows, W, C) of any device."""

    def write(self, first: int, rows: Tensor) -> None:
        """Copies rows (rows, W, C) to rows first, first + 1, …"""

    def close(self) -> None:
        """Frees what the plane holds. It cannot be used after."""


class MemoryPlane:
    """An activation that is a tensor (H, W, C), of any strides."""

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self.height, self.width = values.shape[:2]

    def read(self, first: int, into: Tensor) -> None:
        into.copy_(self.values[first : first + len(into)])

    def write(self, first: int, rows: Tensor) -> None:
        self.values[first : first + len(rows)].copy_(rows)

    def close(self) -> None:
        self.values = torch.empty(0)


class FilePlane:
    """An activation in a nameless file in a folder. Every row is written before it is read."""

    def __init__(self, height: int, width: int, channels: int, dtype: torch.dtype, folder: Path) -> None:
        self.height, self.width = height, width
        self._row_bytes = width * channels * dtype.itemsize
        self._folder = folder
        # Unbuffered: whole bands are moved at once.
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115, it lives as long as the plane

    def read(self, first: int, into: Tensor) -> None:
        if into.device.type != "cpu":
            staged = torch.empty(into.shape, dtype=into.dtype)
            self.read(first, staged)
            into.copy_(staged)
            return
        self._file.seek(first * self._row_bytes)
        for band in _contiguous(into):
            left = _as_bytes(band)
            while left:  # the kernel may give less than was asked for
                num_bytes = self._file.readinto(left)
                if not num_bytes:
                    raise EOFError(f"rows from {first} on were read before they were written")
                left = left[num_bytes:]

    def write(self, first: int, rows: Tensor) -> None:
        self._file.seek(first * self._row_bytes)
        left = _as_bytes(rows.cpu().contiguous())
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            raise InvalidInput(
                f"an activation cannot be written to {self._folder} ({error.strerror}); "
                "free some space there, name another folder or raise the memory limit"
            ) from error

    def close(self) -> None:
        self._file.close()


def _contiguous(rows: Tensor) -> Iterator[Tensor]:
    if rows.is_contiguous():
        yield rows
    else:
        yield from rows.unbind(0)


def _as_bytes(values: Tensor) -> memoryview:
    return memoryview(values.view(torch.uint8).numpy()).cast("B")
