import errno
from pathlib import Path
from typing import Any

import pytest
import torch

from pixart_sigma.encoders.strips.planes import FilePlane, MemoryPlane
from pixart_sigma.errors import InvalidInput


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_file_gives_back_what_was_written(tmp_path: Path, dtype: torch.dtype) -> None:
    picture = torch.randn(9, 5, 3).to(dtype)
    plane = FilePlane(9, 5, 3, dtype, tmp_path)
    assert not list(tmp_path.iterdir())  # it has no name from the start
    memory = MemoryPlane(torch.empty(9, 5, 3, dtype=dtype))
    for first in (4, 0, 8):
        plane.write(first, picture[first : first + 4])
        memory.write(first, picture[first : first + 4])
    for source in (plane, memory):
        whole, wider = torch.empty(9, 5, 3, dtype=dtype), torch.zeros(2, 6, 3, dtype=dtype)
        source.read(0, whole)
        source.read(3, wider[:, :5])
        assert torch.equal(whole, picture)
        assert torch.equal(wider[:, :5], picture[3:5])
        assert not wider[:, 5].any()
        source.close()


def test_a_full_disk_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class FullDisk:
        def seek(self, place: int) -> None: ...

        def write(self, data: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    plane = FilePlane(2, 2, 1, torch.float32, tmp_path)
    plane.close()
    monkeypatch.setattr(plane, "_file", FullDisk())
    with pytest.raises(InvalidInput, match=r"No space left on device.*raise the memory limit"):
        plane.write(0, torch.zeros(2, 2, 1))


def test_rows_that_were_not_written_cannot_be_read(tmp_path: Path) -> None:
    plane = FilePlane(2, 2, 1, torch.float32, tmp_path)
    plane.write(0, torch.zeros(1, 2, 1))
    with pytest.raises(EOFError):
        plane.read(0, torch.empty(2, 2, 1))
    plane.close()
