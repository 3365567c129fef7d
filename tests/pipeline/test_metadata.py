from pathlib import Path

import pytest
from PIL import Image

from pixart_sigma.errors import InvalidInput
from pixart_sigma.pipeline.metadata import check_output, numbered, write_png


def test_parameters_survive_the_file(tmp_path: Path) -> None:
    parameters = {
        "prompt": "ein grüner Kaktus ☀\nmit Gesicht",
        "seed": 7,
        "guidance_scale": 4.5,
        "negative_prompt": "",
    }
    write_png(Image.new("RGB", (32, 16), "red"), tmp_path / "picture.png", parameters)
    with Image.open(tmp_path / "picture.png") as image:
        assert image.text == {key: str(value) for key, value in parameters.items()}
        assert image.size == (32, 16)
        assert image.getpixel((3, 3)) == (255, 0, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


def test_nothing_half_written_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_halfway(self: Image.Image, path: Path, **_: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail_halfway)
    with pytest.raises(OSError, match="No space left"):
        write_png(Image.new("RGB", (16, 16)), tmp_path / "picture.png", {})
    assert not list(tmp_path.iterdir())


def test_several_pictures_are_numbered() -> None:
    assert numbered(Path("a/cactus.png"), 1) == [Path("a/cactus.png")]
    assert numbered(Path("a/cactus.png"), 2) == [Path("a/cactus-1.png"), Path("a/cactus-2.png")]
    assert numbered(Path("cactus.png"), 10)[::9] == [Path("cactus-01.png"), Path("cactus-10.png")]


@pytest.mark.parametrize("name", ["picture.jpg", "picture", "picture.png.webp"])
def test_only_png_is_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        InvalidInput, match=r"does not end in \.png, the only format that is written; name it"
    ):
        check_output(tmp_path / name)


def test_an_output_in_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="does not exist"):
        check_output(tmp_path / "nowhere" / "picture.png")
