"""Pictures on disk: PNG files that say in text chunks how they were made.

Knows nothing of how pictures are made.
"""

from collections.abc import Mapping
from pathlib import Path

from PIL.Image import Image
from PIL.PngImagePlugin import PngInfo

from pixart_sigma.errors import InvalidInput
from pixart_sigma.weights.atomic import check_writable, written_whole


def check_output(path: Path) -> None:
    """Raises InvalidInput unless a PNG file can be written at `path`; leaves nothing there."""
    if path.suffix.lower() != ".png":
        raise InvalidInput(
            f"output {path} does not end in .png, the only format that is written; name it {path.stem}.png"
        )
    check_writable(path)


def numbered(path: Path, count: int) -> list[Path]:
    """The files of `count` pictures: cactus.png → cactus.png alone, or cactus-1.png, cactus-2.png, …"""
    if count == 1:
        return [path]
    digits = len(str(count))
    return [path.with_stem(f"{path.stem}-{number:0{digits}}") for number in range(1, count + 1)]


def write_png(image: Image, path: Path, parameters: Mapping[str, object]) -> None:
    """Writes a picture with one text chunk per parameter; the file appears whole or not at all."""
    chunks = PngInfo()
    for key, value in parameters.items():
        text = str(value)
        # Plain chunks are Latin-1; the rest of the world needs the international kind.
        if text.isascii():
            chunks.add_text(key, text)
        else:
            chunks.add_itxt(key, text)
    with written_whole(path) as temporary:
        image.save(temporary, format="PNG", pnginfo=chunks)
