import os
from pathlib import Path

import pytest

from pixart_sigma.errors import InvalidInput
from pixart_sigma.weights.atomic import check_writable, folder_written_whole, written_whole


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    with written_whole(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
    assert path.read_text() == "half"
    assert list(tmp_path.iterdir()) == [path]


def test_after_a_failure_all_is_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_text("old")

    def fail_halfway() -> None:
        with written_whole(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_halfway()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_permissions_are_the_users(tmp_path: Path) -> None:
    umask = os.umask(0o027)
    try:
        with written_whole(tmp_path / "file") as temporary:
            temporary.write_text("")
    finally:
        os.umask(umask)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_a_writable_path_stays_untouched(tmp_path: Path) -> None:
    check_writable(tmp_path / "file")
    assert not list(tmp_path.iterdir())


def test_unwritable_paths_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="is a folder"):
        check_writable(tmp_path)
    with pytest.raises(InvalidInput, match="does not exist; create it first"):
        check_writable(tmp_path / "nowhere" / "file")
    with pytest.raises(InvalidInput, match="does not exist; create it first"):
        check_writable(tmp_path / "file" / "file")


def test_a_folder_that_refuses_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)  # the tests may run as root, whom no folder refuses
    with pytest.raises(InvalidInput, match=r"is not writable \(Permission denied\)"):
        check_writable(tmp_path / "file")


def test_a_folder_takes_the_place_of_another_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "model"
    for content in ("old", "new"):
        with folder_written_whole(path) as temporary:
            (temporary / content).write_text(content)
            assert not (path / content).exists()
        assert [file.name for file in path.iterdir()] == [content]
    assert list(tmp_path.iterdir()) == [path]
    umask = os.umask(0o022)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o777 & ~umask
    assert all(each.stat().st_mode & 0o777 == 0o666 & ~umask for each in path.iterdir())


@pytest.mark.parametrize(
    "failure", [OSError(18, "cross-device link"), KeyboardInterrupt("cross-device link")]
)
def test_after_a_failure_the_old_folder_stays(
    failure: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").write_text("old")

    def fail_halfway() -> None:
        with folder_written_whole(path) as temporary:
            (temporary / "new").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_halfway()

    replace = Path.replace

    def refuse(self: Path, target: Path) -> Path:
        if Path(target) == path and not (self / "old").exists():
            raise failure
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(type(failure), match="cross-device"), folder_written_whole(path) as temporary:
        (temporary / "new").write_text("whole")
    assert [file.name for file in path.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [path]
