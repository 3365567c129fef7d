"""Tensors from files: .safetensors, alone or in several with an index, and torch's .pth without running its pickle.

Knows nothing of models: only of what a file must be to be read at all. Every fault is a WeightsError of one line.
"""

import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from pixart_sigma.encoders.pretrained import abbreviate, first_line
from pixart_sigma.errors import WeightsError
from pixart_sigma.weights.folder import read_json

AGAIN = "fetch or export it again"
_CORRUPT = "weight file {} is corrupt (no whole file of torch.save); " + AGAIN
_NAMED_BY_PICKLE = re.compile(r"GLOBAL (\S+)")


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A .safetensors file → its tensors, and its metadata. Raises WeightsError if it is missing or corrupt."""
    with _faults_named(path), safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118


def read_weights(path: Path) -> dict[str, Tensor]:
    """A .safetensors file → its tensors. Raises WeightsError if it is missing or corrupt."""
    return read_safetensors(path)[0]


def read_sharded_weights(index: Path) -> dict[str, Tensor]:
    """The tensors of all the files that an index names, which lie beside it.

    Raises WeightsError if one is missing or corrupt, lies elsewhere, or holds other tensors than the index says.
    """
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(
        isinstance(name, str) and name and Path(name).name == name for name in weight_map.values()
    ):
        raise WeightsError(f"{index} maps no tensors to files beside it; {AGAIN}")
    state_dict: dict[str, Tensor] = {}
    for name in sorted(set(weight_map.values())):
        shard = read_weights(index.parent / name)
        twice = sorted(state_dict.keys() & shard.keys())
        if twice:
            raise WeightsError(f"{index} has files that share {abbreviate(twice)}; {AGAIN}")
        state_dict |= shard
    if state_dict.keys() != weight_map.keys():
        differing = abbreviate(sorted(state_dict.keys() ^ weight_map.keys()))
        raise WeightsError(f"{index} does not fit its files: {differing}; fetch or export them again")
    return state_dict


def read_pth(path: Path) -> Any:
    """A file of torch.save → what it holds, tensors mapped from the file where that is possible.

    Only tensors and plain Python values are built: a pickle that names anything else is refused before it can act.
    """
    with _faults_named(path):
        zipped = zipfile.is_zipfile(path)
        if zipped:
            _check_zip(path)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore"
                )  # of old formats and typed storages; the content is checked by us
                return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
        except pickle.UnpicklingError as error:
            named = _NAMED_BY_PICKLE.search(str(error))
            if named is None:
                raise WeightsError(_CORRUPT.format(path)) from error
            raise WeightsError(
                f"{path} names {abbreviate([named[1]])}, which is no tensor and could run code; it was not opened: "
                "fetch weights from somebody you trust, as .safetensors"
            ) from error
        except OSError:
            raise
        except Exception as error:  # nearly any, and few of them say what is wrong
            raise WeightsError(_CORRUPT.format(path)) from error


def _check_zip(path: Path) -> None:
    """torch stores its records as they are; a compressed one could grow without limit."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    size = path.stat().st_size
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > size:
            raise WeightsError(
                f"{path} has a compressed record, {abbreviate([entry.filename])}, which torch does not write; {AGAIN}"
            )


@contextmanager
def _faults_named(path: Path) -> Iterator[None]:
    if path.is_dir():  # the libraries would say that there is no such device
        raise WeightsError(f"weight file {path} is a folder; name a file in it, or the model's folder")
    if not path.is_file():
        raise WeightsError(f"weight file {path} is missing; {AGAIN}")
    try:
        yield
    except WeightsError:
        raise
    except OSError as error:
        if error.strerror is not None:
            raise WeightsError(f"weight file {path} cannot be read ({error.strerror}); {AGAIN}") from error
        raise WeightsError(f"weight file {path} is corrupt ({first_line(error)}); {AGAIN}") from error
    except Exception as error:
        # Both libraries raise nearly everything for broken bytes; each is the file's fault here.
        raise WeightsError(f"weight file {path} is corrupt ({first_line(error)}); {AGAIN}") from error


def check_tensors(tensors: Mapping[Any, Any], source: str) -> dict[str, Tensor]:
    """What a file calls its weights → the same, seen to be named dense tensors of real floating-point numbers."""
    for name, tensor in tensors.items():
        if not isinstance(name, str):
            raise WeightsError(
                f"{source} names a tensor {abbreviate([repr(name)])}, which is no text; {AGAIN}"
            )
        if not isinstance(tensor, Tensor):
            raise WeightsError(
                f"{source} holds {abbreviate([name])} as {type(tensor).__name__}, not as a tensor; {AGAIN}"
            )
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
            raise WeightsError(f"{source} holds {abbreviate([name])} as no plain tensor; {AGAIN}")
        if not tensor.is_floating_point() or tensor.element_size() < 2:
            raise WeightsError(
                f"{source} holds {abbreviate([name])} in {str(tensor.dtype).removeprefix('torch.')}; "
                "weights are float32, bfloat16, float16 or float64"
            )
    return dict(tensors)
