"""A T5 encoder's files, as transformers writes them: config.json, and one file of weights or several with an index.

safetensors only; names and shapes fit, or the message says which do not. Files are mapped: weights in the dtype that
is asked for are not copied.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from pixart_sigma.encoders.pretrained import abbreviate, first_line
from pixart_sigma.encoders.t5 import KEPT_IN_FP32, T5Config, T5Encoder
from pixart_sigma.errors import WeightsError

_AGAIN = "fetch or export it again"
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_EMBEDDINGS = "shared.weight"
_EMBEDDINGS_TOO = "encoder.embed_tokens.weight"
"""Another name of the same table; files have either or both."""
_FLOATS = ("F64", "F32", "F16", "BF16")  # as safetensors calls them
_ALWAYS_THERE = ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads")


def read_config(folder: Path) -> T5Config:
    """A folder with config.json → T5Config.

    Raises WeightsError if it is missing or unreadable, or says of a T5 that it is of the first version.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise WeightsError(f"{folder} has no {CONFIG_FILE}; {_AGAIN}")
    with faults_named(path):
        content = json.loads(path.read_text("utf-8"))
        if not isinstance(content, dict):
            raise TypeError("it is no JSON object")
        missing = [name for name in _ALWAYS_THERE if name not in content]
        if missing:
            raise KeyError(f"it has no {missing[0]}")
        known = {field.name: content[field.name] for field in fields(T5Config) if field.name in content}
        for name, value in known.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
                raise ValueError(f"{name} is {value!r}")
    if content.get("feed_forward_proj", "gated-gelu") != "gated-gelu":
        raise WeightsError(
            f"{folder} has feed_forward_proj {content['feed_forward_proj']!r}; only gated-gelu is known here, that of "
            "T5 v1.1 and Flan-T5, which PixArt uses"
        )
    return T5Config(**known)


def empty_t5(folder: Path) -> T5Encoder:
    """A folder with config.json → the encoder on the meta device. Raises WeightsError."""
    config = read_config(folder)
    with faults_named(folder / CONFIG_FILE), torch.device("meta"):
        return T5Encoder(config).eval()


def load_t5(folder: Path, dtype: torch.dtype = torch.float32) -> T5Encoder:
    """A folder with config.json and .safetensors → the encoder in eval mode on the CPU.

    Raises WeightsError if a file is missing or corrupt, or if any tensor lacks or does not fit.
    """
    model = empty_t5(folder)
    files = find_tensors(folder, model)
    mapped = mapped_tensors(files, files)
    model.load_state_dict({name: cast(name, tensor, dtype) for name, tensor in mapped.items()}, assign=True)
    return model


def config_content(model: T5Encoder) -> dict[str, Any]:
    """What config.json says of a model, for transformers' `T5EncoderModel` too."""
    return {
        "architectures": ["T5EncoderModel"],
        "model_type": "t5",
        "dtype": str(model.dtype).removeprefix("torch."),
        **asdict(model.config),
        "feed_forward_proj": "gated-gelu",
        "dropout_rate": 0.0,
        "is_encoder_decoder": False,
        "use_cache": False,
        "pad_token_id": 0,
        "eos_token_id": 1,
    }


def cast(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A weight in the dtype that is computed in; in fp16 some stay in fp32."""
    kept = dtype == torch.float16 and KEPT_IN_FP32 in name.split(".")
    return tensor.to(torch.float32 if kept else dtype)


def mapped_tensors(files: Mapping[str, Path], names: Iterable[str]) -> dict[str, Tensor]:
    """Tensors as the files hold them; a file is mapped for as long as one of its tensors lives. Raises WeightsError."""
    by_file: dict[Path, list[str]] = {}
    for name in names:
        by_file.setdefault(files[name], []).append(name)
    mapped: dict[str, Tensor] = {}
    for path, its_names in by_file.items():
        with faults_named(path), safe_open(path, framework="pt") as file:
            stored = set(file.keys())
            for name in its_names:
                mapped[name] = file.get_tensor(name if name in stored else _EMBEDDINGS_TOO)
    return mapped


def find_tensors(folder: Path, model: T5Encoder) -> dict[str, Path]:
    """Where each tensor of a model is, seen to be there once, in its shape, with nothing beside.

    Raises WeightsError if it is not so.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    shapes[_EMBEDDINGS_TOO] = shapes[_EMBEDDINGS]
    found: dict[str, Path] = {}
    mismatched: list[str] = []
    for path in _weight_files(folder):
        with faults_named(path), safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                header = file.get_slice(name)
                if name in shapes and (
                    name in found
                    or tuple(header.get_shape()) != shapes[name]
                    or header.get_dtype() not in _FLOATS
                ):
                    mismatched.append(name)
                found[name] = path
    if _EMBEDDINGS_TOO in found:
        found.setdefault(_EMBEDDINGS, found[_EMBEDDINGS_TOO])
    missing = sorted(shapes.keys() - found.keys() - {_EMBEDDINGS_TOO})
    # A whole T5 may lie there; its decoder is passed over, as transformers does.
    unexpected = sorted(name for name in found.keys() - shapes.keys() if "decoder" not in name)
    problems = {"missing": missing, "mismatched": mismatched, "unexpected": unexpected}
    for problem, names in problems.items():
        if names:
            raise WeightsError(
                f"{folder} does not fit its config.json: {problem} {abbreviate(names)}; {_AGAIN}"
            )
    return {name: path for name, path in found.items() if name in shapes and name != _EMBEDDINGS_TOO}


def _weight_files(folder: Path) -> list[Path]:
    """The one file, or all that the index names."""
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    if not (folder / _INDEX).is_file():
        raise WeightsError(
            f"{folder} has neither {WEIGHTS_FILE} nor {_INDEX} (pickled weights are never read); convert or fetch them"
        )
    with faults_named(folder / _INDEX):
        names = sorted(set(json.loads((folder / _INDEX).read_text("utf-8"))["weight_map"].values()))
        if not all(name and Path(name).name == name for name in names):
            raise ValueError("it names files that do not lie beside it")
    return [folder / name for name in names]


@contextmanager
def faults_named(path: Path) -> Iterator[None]:
    """Whatever goes wrong meanwhile is the fault of that file: raises WeightsError."""
    try:
        yield
    except WeightsError:
        raise
    except Exception as error:  # the libraries raise nearly everything for a broken file
        raise WeightsError(f"{path} cannot be loaded ({first_line(error)}); {_AGAIN}") from error
