import os
import tempfile
from pathlib import Path

import pytest

from pixart_sigma.encoders import tiling
from pixart_sigma.encoders.tiling import Tiling, find_spill_folder
from pixart_sigma.errors import InvalidInput


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "blurred"}, "unknown tiling 'blurred'; one of exact, fast"),
        ({"method": "fast", "limit_bytes": 1, "spill": Path()}, "exact tiling with a limit only"),
        ({"method": "exact", "spill": Path()}, "exact tiling with a limit only"),
    ],
)
def test_what_would_be_ignored_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Tiling(**options)  # type: ignore[arg-type]


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    first, second = tmp_path / "temporary", tmp_path / "cache"
    first.mkdir()
    second.mkdir()
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(first))
    monkeypatch.setattr(tiling, "_LARGE_TEMPORARY", tmp_path / "none")
    monkeypatch.setenv("XDG_CACHE_HOME", str(second))
    monkeypatch.setattr(tiling, "_memory_devices", lambda: frozenset())
    return first, second


def test_the_first_place_with_room_is_chosen(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = places
    free = {first: 1000, second: 2000}
    monkeypatch.setattr(tiling, "_free_bytes", lambda folder: free[folder])
    assert find_spill_folder() == first
    assert find_spill_folder(1000) == first
    assert find_spill_folder(1001) == second
    with pytest.raises(InvalidInput, match=r"on a disk with 1 MiB left; set TMPDIR"):
        find_spill_folder(2001)


def test_a_full_disk_under_the_first_place_is_passed_over(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    assert find_spill_folder() == places[1]


def test_memory_is_no_place_for_what_does_not_fit_in_memory(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    device = places[0].stat().st_dev
    monkeypatch.setattr(tiling, "_memory_devices", lambda: frozenset({device}))
    with pytest.raises(InvalidInput, match="no usual folder for temporary files is on a disk"):
        find_spill_folder()


def test_file_systems_in_memory_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
        "25 22 0:23 / /tmp rw,nosuid - tmpfs tmpfs rw,size=1024k\n"
        "26 22 0:24 / /with\\040space rw - ramfs none rw\n"
    )
    monkeypatch.setattr(tiling, "_MOUNTS", mounts)
    assert tiling._memory_devices() == {os.makedev(0, 23), os.makedev(0, 24)}
    monkeypatch.setattr(tiling, "_MOUNTS", tmp_path / "none")
    assert not tiling._memory_devices()
