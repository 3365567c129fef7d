"""Where a model's files are: the pocket model inside the package, or a folder in diffusers' pipeline layout.

Knows nothing of tensors, so that a wrong path is found before anything heavy is imported.
"""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from pixart_sigma.errors import InvalidInput, WeightsError
from pixart_sigma.resolution import LATENT_SCALE

POCKET = "pocket"
COMPONENTS = ("transformer", "text_encoder", "tokenizer", "vae", "scheduler")
# peft's names.
ADAPTER_FILE = "adapter_model.safetensors"
ADAPTER_CONFIG_FILE = "adapter_config.json"


def find_pipeline(model: str | Path) -> Path:
    """ "pocket" or a path → the pipeline's folder, its parts all present.

    Raises InvalidInput for an unknown model, WeightsError for a folder that lacks a part.
    """
    folder = Path(str(files("pixart_sigma").joinpath(POCKET))) if str(model) == POCKET else Path(model)
    if str(model) == POCKET and not folder.is_dir():
        raise WeightsError(f"the pocket model is not in this installation ({folder}); reinstall pixart-sigma")
    if not folder.is_dir():
        raise InvalidInput(
            f"unknown model {str(model)!r}: neither 'pocket' nor a folder; give one of the two (--model)"
        )
    missing = [name for name in COMPONENTS if not (folder / name).is_dir()]
    if missing:
        raise WeightsError(
            f"model folder {folder} lacks {', '.join(missing)}; "
            f"give a folder in the diffusers pipeline layout ({', '.join(COMPONENTS)})"
        )
    return folder


def find_lora(path: str | Path) -> Path:
    """A LoRA's .safetensors file, or peft's folder → the file. Raises InvalidInput if there is none."""
    path = Path(path)
    file = path / ADAPTER_FILE if path.is_dir() else path
    if not file.is_file():
        raise InvalidInput(
            f"LoRA {file} does not exist; give a .safetensors file, or a folder with {ADAPTER_FILE}"
        )
    if file.suffix != ".safetensors":
        raise InvalidInput(
            f"LoRA {file} is not a .safetensors file (pickled weights are never read); convert it"
        )
    return file


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises WeightsError if there is none."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror}); fetch or export it again") from error
    except ValueError as error:
        raise WeightsError(f"{path} is not JSON ({error}); fetch or export it again") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds no JSON object; fetch or export it again")
    return content


def base_resolution(folder: Path) -> int:
    """The side in pixels of the square that the pipeline's transformer was trained on."""
    path = folder / "transformer" / "config.json"
    sample_size = read_json(path).get("sample_size")
    if not isinstance(sample_size, int) or sample_size < 1:
        raise WeightsError(
            f"{path} has sample_size {sample_size!r}, not a positive integer; fetch or export it again"
        )
    return sample_size * LATENT_SCALE
