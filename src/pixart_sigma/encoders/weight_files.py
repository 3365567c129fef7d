"""A part's folder: config.json, and one file of weights or several with an index, as diffusers and transformers write.

safetensors only; names and shapes fit, or the message says which do not. Files are mapped: what is in the dtype that is
asked for is not copied. Knows nothing of what models compute.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from pixart_sigma.encoders.pretrained import abbreviate, first_line
from pixart_sigma.errors import WeightsError

CONFIG_FILE = "config.json"
_AGAIN = "fetch or export it again"
_FLOATS = ("F64", "F32", "F16", "BF16")  # as safetensors calls them


@dataclass(frozen=True)
class Place:
    """Where a tensor is, and its name there."""

    file: Path
    name: str


def read_config(folder: Path) -> dict[str, Any]:
    """A folder → what its config.json says. Raises WeightsError if it is missing or no JSON object."""
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise WeightsError(f"{folder} has no {CONFIG_FILE}; {_AGAIN}")
    with faults_named(path):
        content = json.loads(path.read_text("utf-8"))
        if not isinstance(content, dict):
            raise TypeError("it is no JSON object")
    return content


def find_tensors(
    folder: Path,
    whole: str,
    shapes: Mapping[str, tuple[int, ...]],
    renamed: Callable[[str], str],
    passed_over: Callable[[str], bool],
    may_be_twice: Collection[str] = (),
) -> dict[str, Place]:
    """Where each tensor of a model is, seen to be there once, in its shape, with nothing beside.

    whole: the name of the one file of weights; the index has another ending. renamed: a file's name of a tensor → the
    model's. may_be_twice: those that may be there under two names, and are then alike. passed_over: tensors, by the
    files' names, that may be there and are not used.
    Raises WeightsError if it is not so, and for a file that is missing or corrupt.
    """
    found: dict[str, Place] = {}
    mismatched: list[str] = []
    unexpected: list[str] = []
    for path in _weight_files(folder, whole):
        with faults_named(path), safe_open(path, framework="pt") as file:
            for stored in file.keys():  # noqa: SIM118
                name, header = renamed(stored), file.get_slice(stored)
                if name not in shapes:
                    if not passed_over(stored):
                        unexpected.append(stored)
                    continue
                twice = name in found and (name not in may_be_twice or found[name].name == stored)
                fits = tuple(header.get_shape()) == shapes[name] and header.get_dtype() in _FLOATS
                if twice or not fits:
                    mismatched.append(stored)
                found[name] = Place(path, stored)
    problems = {
        "missing": sorted(shapes.keys() - found.keys()),
        "mismatched": mismatched,
        "unexpected": sorted(unexpected),
    }
    for problem, names in problems.items():
        if names:
            raise WeightsError(
                f"{folder} does not fit its config.json: {problem} {abbreviate(names)}; {_AGAIN}"
            )
    return found


def mapped_tensors(places: Mapping[str, Place], names: Iterable[str]) -> dict[str, Tensor]:
    """Tensors as the files hold them; a file is mapped for as long as one of its tensors lives. Raises WeightsError."""
    by_file: dict[Path, list[str]] = {}
    for name in names:
        by_file.setdefault(places[name].file, []).append(name)
    mapped: dict[str, Tensor] = {}
    for path, its_names in by_file.items():
        with faults_named(path), safe_open(path, framework="pt") as file:
            mapped.update((name, file.get_tensor(places[name].name)) for name in its_names)
    return mapped


@contextmanager
def faults_named(path: Path) -> Iterator[None]:
    """Whatever goes wrong meanwhile is the fault of that file: raises WeightsError."""
    try:
        yield
    except WeightsError:
        raise
    except Exception as error:  # the libraries raise nearly everything for a broken file
        raise WeightsError(f"{path} cannot be loaded ({first_line(error)}); {_AGAIN}") from error


def _weight_files(folder: Path, whole: str) -> list[Path]:
    """The one file, or all that the index names."""
    index = f"{whole}.index.json"
    if (folder / whole).is_file():
        return [folder / whole]
    if not (folder / index).is_file():
        raise WeightsError(
            f"{folder} has neither {whole} nor {index} (pickled weights are never read); convert or fetch them"
        )
    with faults_named(folder / index):
        names = sorted(set(json.loads((folder / index).read_text("utf-8"))["weight_map"].values()))
        if not all(name and Path(name).name == name for name in names):
            raise ValueError("it names files that do not lie beside it")
    return [folder / name for name in names]
