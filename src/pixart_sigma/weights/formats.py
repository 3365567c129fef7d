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
_SUFFIXES: dict[str, tuple[str, ...]] = {"official": (".pth", ".pt"), "single-file": (".safetensors",)}


def check_target(target: Path, target_format: Format, source: Path, overwrite: bool) -> None:
    """Raises InvalidInput for a target that is there already, cannot be, or is the source."""
    suffixes = _SUFFIXES.get(target_format)
    place = target / TRANSFORMER if suffixes is None else target
    if suffixes is None:
        if target.suffix in {suffix for names in _SUFFIXES.values() for suffix in names} or target.is_file():
            raise InvalidInput(f"{target} is a file's name; --to {target_format} writes a folder: name one")
    elif target.suffix not in suffixes or target.is_dir():
        raise InvalidInput(
            f"{target} is no file's name for --to {target_format}; let it end in {' or '.join(suffixes)}"
        )
    if not target.absolute().parent.is_dir():
        raise InvalidInput(f"folder {target.parent} does not exist; create it first")
    if place.resolve() == source.resolve():
        raise InvalidInput(f"{target} is what is to be converted; name another place")
    if place.exists() and not overwrite:
        raise InvalidInput(f"{place} is there already; name another place, or replace it with --overwrite")


def check_dtype(dtype: str | None) -> None:
    """Raises InvalidInput for a dtype that weights are not written in."""
    if dtype is not None and dtype not in DTYPES:
        raise InvalidInput(f"unknown dtype {dtype!r}; one of {', '.join(DTYPES)} (--dtype)")
