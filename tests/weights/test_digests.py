import errno
import os
import shutil
from pathlib import Path

import pytest

from pixart_sigma.weights import digests
from pixart_sigma.weights.digests import text_encoder_digest


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    for part in ("text_encoder", "tokenizer"):
        shutil.copytree(tiny_folder / part, tmp_path / "model" / part)
    return tmp_path / "model"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that are read through."""
    found: list[Path] = []
    whole = digests.files_digest
    monkeypatch.setattr(
        digests, "files_digest", lambda folder, files: (found.append(folder), whole(folder, files))[1]
    )
    return found


def flip_last_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_files_are_read_once(folder: Path, tmp_path: Path, read: list[Path]) -> None:
    plain = text_encoder_digest(folder)
    found = [text_encoder_digest(folder, tmp_path / "memory" / "prompts") for _ in range(3)]
    assert found == [plain] * 3
    assert len(read) == 2


def test_a_changed_file_is_noticed_though_its_size_and_time_are_the_old_ones(
    folder: Path, tmp_path: Path, read: list[Path]
) -> None:
    path = folder / "text_encoder" / "model.safetensors"
    before, times = text_encoder_digest(folder, tmp_path / "memory"), path.stat()
    flip_last_bit(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    after = text_encoder_digest(folder, tmp_path / "memory")
    assert after != before
    assert after == text_encoder_digest(folder)
    assert len(read) == 3


@pytest.mark.parametrize("name", ["text_encoder/config.json", "tokenizer/tokenizer.json"])
def test_other_files_count_too(name: str, folder: Path, tmp_path: Path) -> None:
    before = text_encoder_digest(folder, tmp_path / "memory")
    (folder / name).write_text((folder / name).read_text() + " ")
    assert text_encoder_digest(folder, tmp_path / "memory") != before


def test_a_copy_elsewhere_is_another_look_and_the_same_digest(
    folder: Path, tmp_path: Path, read: list[Path]
) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    digest = text_encoder_digest(folder, tmp_path / "memory")
    assert text_encoder_digest(tmp_path / "copy", tmp_path / "memory") == digest
    assert read == [folder, tmp_path / "copy"]


@pytest.mark.parametrize("content", ["", "no digest", "0A" * 16, "é"])
def test_a_broken_memory_is_made_again(content: str, folder: Path, tmp_path: Path) -> None:
    digest = text_encoder_digest(folder, tmp_path / "memory")
    (kept,) = (path for path in (tmp_path / "memory").rglob("*") if path.is_file())
    kept.write_text(content, "utf-8")
    assert text_encoder_digest(folder, tmp_path / "memory") == digest
    assert kept.read_text("utf-8") == digest


def test_files_that_change_while_they_are_read_are_not_remembered(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = digests.files_digest

    def read_while_written(folder: Path, files: list[Path]) -> str:
        digest = whole(folder, files)
        flip_last_bit(files[0])
        return digest

    with monkeypatch.context() as patched:
        patched.setattr(digests, "files_digest", read_while_written)
        before = text_encoder_digest(folder, tmp_path / "memory")
    assert not (tmp_path / "memory").exists()
    assert text_encoder_digest(folder, tmp_path / "memory") != before


def test_a_full_disk_is_a_warning(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.warns(
        UserWarning, match=r"digests cannot be written \(No space left on device\), [^\n]+: free some space"
    ):
        assert text_encoder_digest(folder, tmp_path / "memory") == text_encoder_digest(folder)
    assert not any(path.is_file() for path in (tmp_path / "memory").rglob("*"))
