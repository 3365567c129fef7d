"""The formats that a transformer can be written in, and what a target of each may be called.

Knows nothing of tensors, so that a wrong target is found before anything heavy is imported.
"""

from pathlib import Path
from typing import Literal

from pixart_sigma.errors import InvalidInput

Format = Literal["diffusers", "official", "single-file"]
DTYPES = ("float32", "bfloat16", "float16")
TRANSFORMER = "transformer"
"""A converted folder is a pipeline's that has this part alone, as the released repositories are."""
SAFETENSORS = ".safetensors"
NULL_CAPTION_FILE = "null_caption.safetensors"
_SUFFIXES: dict[str, tuple[str, ...]] = {"official": (".pth", ".pt"), "single-file": (SAFETENSORS,)}


def null_caption_file(path: Path) -> Path | None:
    """Where the null caption of a transformer's folder or .safetensors lies. A .pth holds its own: None."""
    if path.is_dir():
        return path / NULL_CAPTION_FILE
    return path.with_name(f"{path.name}.{NULL_CAPTION_FILE}") if path.suffix == SAFETENSORS else None


def check_target(target: Path, target_format: Format, overwrite: bool) -> None:
    """Raises InvalidInput for a target that is there already or cannot be."""
    suffixes = _SUFFIXES.get(target_format)
    if suffixes is None:
        if target.suffix in {suffix for names in _SUFFIXES.values() for suffix in names} or target.is_file():
            raise InvalidInput(f"{target} is a file's name; --to {target_format} writes a folder: name one")
    elif target.suffix not in suffixes or target.is_dir():
        raise InvalidInput(
            f"{target} is no file's name for --to {target_format}; let it end in {' or '.join(suffixes)}"
        )
    if not target.absolute().parent.is_dir():
        raise InvalidInput(f"folder {target.parent} does not exist; create it first")
    place = _place(target, target_format)
    side = null_caption_file(place) if suffixes is not None else None
    if side is not None and side.is_dir():
        raise InvalidInput(f"{side}, where the null caption belongs, is a folder; name another place")
    for path in (place, side):
        if path is not None and path.exists() and not overwrite:
            raise InvalidInput(f"{path} is there already; name another place, or replace it with --overwrite")


def check_source_stays(target: Path, target_format: Format, source: Path) -> None:
    """Raises InvalidInput for a target that would take the place of the source, or of a folder around it."""
    place = _place(target, target_format)
    if source.resolve().is_relative_to(place.resolve()):
        what = "is" if source.resolve() == place.resolve() else "holds"
        raise InvalidInput(f"{place} {what} what is to be converted; name another place")


def _place(target: Path, target_format: Format) -> Path:
    """What will be replaced."""
    return target if target_format in _SUFFIXES else target / TRANSFORMER


def check_dtype(dtype: str | None) -> None:
    """Raises InvalidInput for a dtype that weights are not written in."""
    if dtype is not None and dtype not in DTYPES:
        raise InvalidInput(f"unknown dtype {dtype!r}; one of {', '.join(DTYPES)} (--dtype)")
