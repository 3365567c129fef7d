"""A transformer as it lies in a file or a folder: configuration, weights, null caption. Reads every format there is.

    official       .pth: {"state_dict": …, "state_dict_ema": …}, or the state dict alone; official names
    diffusers      a folder: config.json, one or several .safetensors; our names
    single-file    one .safetensors, in either's names

Knows nothing of modules: whether the weights make a model of the configuration is seen when one is built. Legend:
L caption tokens, C channels of the text encoder.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from pixart_sigma.encoders.pretrained import abbreviate
from pixart_sigma.errors import WeightsError
from pixart_sigma.model.config import TransformerConfig
from pixart_sigma.weights.catalogue import find_release
from pixart_sigma.weights.config import released_config, transformer_config
from pixart_sigma.weights.folder import read_json
from pixart_sigma.weights.formats import SAFETENSORS, null_caption_file
from pixart_sigma.weights.inference import infer_config
from pixart_sigma.weights.keys import from_official
from pixart_sigma.weights.tensor_files import (
    AGAIN,
    check_tensors,
    read_pth,
    read_safetensors,
    read_sharded_weights,
    read_weights,
)

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
INDEX_FILE = f"{WEIGHTS_FILE}.index.json"
NULL_CAPTION = "null_caption"
CONFIG_KEY = "pixart_sigma_config"
"""Where our own .pth and .safetensors carry what a folder has in config.json, as JSON."""
POSITIONS = "pos_embed"
OFFICIAL_NULL_CAPTION = "y_embedder.y_embedding"
OLD_NULL_CAPTION = "caption_projection.y_embedding"
# Buffers that early diffusers releases wrote into checkpoints: expected, and dropped.
DROPPED = {
    "pos_embed.pos_embed": "positions are recomputed",
    OLD_NULL_CAPTION: "the null caption is encoded from an empty prompt",
}
# A name that every transformer has, in either's table.
_OURS, _OFFICIAL = "pos_embed.proj.weight", "x_embedder.proj.weight"


@dataclass(frozen=True)
class Checkpoint:
    """A transformer's configuration and weights, in our names.

    null_caption: T5("") padded to the caption length (L, C), the null branch of the official samplers, or None where
    the source has none. source: where it comes from, for messages.
    """

    config: TransformerConfig
    state_dict: dict[str, Tensor]
    null_caption: Tensor | None
    source: str


def read_checkpoint(path: Path | str, ema: bool = False, like: TransformerConfig | None = None) -> Checkpoint:
    """A transformer's folder, .pth or .safetensors → Checkpoint, its tensors on the CPU as they are stored.

    ema: the moving average of a .pth that has one, instead of the weights themselves. like: the configuration of a
    model that this one is like, for what its tensors do not tell. Nothing is unpickled but plain tensors. Raises
    WeightsError for whatever is missing, corrupt, unknown or contradictory.
    """
    path = Path(path)
    if path.is_dir():
        _refuse_ema(ema, path)
        return _read_folder(path, like)
    tensors, embedded = _read_file(path, ema)
    return _from_tensors(tensors, embedded, path, like)


def read_config(path: Path) -> TransformerConfig:
    """The configuration of a transformer's folder or file; of weights only names and shapes are looked at."""
    if path.is_dir():
        # Names decide about micro-conditioning only where the file leaves it open; Σ has none.
        return _config_of(read_json(path / CONFIG_FILE), (), path / CONFIG_FILE)
    tensors, embedded = _read_file(path, ema=False)
    given, positions, _ = _without_buffers(tensors, path)
    shapes = {name: tensor.to("meta") for name, tensor in given.items()}
    return _understood(_in_our_names(shapes, path), positions, embedded, path, None)


def read_null_caption(path: Path, caption_channels: int) -> Tensor:
    """A side file → the null caption (L, C). Raises WeightsError if it is corrupt or does not fit."""
    tensors = check_tensors(read_weights(path), str(path))
    if tensors.keys() != {NULL_CAPTION}:
        raise WeightsError(
            f"{path} holds {abbreviate(sorted(tensors)) or 'nothing'}, not {NULL_CAPTION}; {AGAIN}"
        )
    return _checked_null(tensors[NULL_CAPTION], caption_channels, NULL_CAPTION, path)


def _read_file(path: Path, ema: bool) -> tuple[Mapping[Any, Any], Any]:
    """→ (what it calls its weights, our configuration as JSON or None)."""
    if path.suffix == SAFETENSORS:
        _refuse_ema(ema, path)
        tensors, metadata = read_safetensors(path)
        return tensors, metadata.get(CONFIG_KEY)
    return _official_content(read_pth(path), ema, path)


def _refuse_ema(ema: bool, path: Path) -> None:
    if ema:
        raise WeightsError(
            f"{path} has one set of weights; a moving average beside them is in .pth alone: use --no-ema"
        )


def _read_folder(folder: Path, like: TransformerConfig | None) -> Checkpoint:
    if like is not None:
        raise WeightsError(f"{folder} says what it is in its {CONFIG_FILE}; leave out --like")
    content = read_json(folder / CONFIG_FILE)
    index = folder / INDEX_FILE
    tensors = read_sharded_weights(index) if index.is_file() else read_weights(folder / WEIGHTS_FILE)
    state_dict = check_tensors(tensors, str(folder))
    config = _config_of(content, state_dict, folder / CONFIG_FILE)
    return Checkpoint(config, state_dict, _null_caption(None, state_dict, config, folder), str(folder))


def _official_content(content: Any, ema: bool, path: Path) -> tuple[Mapping[Any, Any], Any]:
    """What a .pth holds → (the chosen state dict, our configuration or None)."""
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not a state dict; {AGAIN}")
    name = "state_dict_ema" if ema else "state_dict"
    if "state_dict" not in content and "state_dict_ema" not in content:
        if ema:
            raise WeightsError(f"{path} has no state_dict_ema; use --no-ema")
        return content, None
    if name not in content:
        remedy = (
            "use --no-ema" if ema else "convert it first: pixart-sigma convert FILE DIR --to diffusers --ema"
        )
        raise WeightsError(f"{path} has no {name}; {remedy}")
    state_dict = content[name]
    if not isinstance(state_dict, Mapping):
        raise WeightsError(
            f"{path} holds {name} as {type(state_dict).__name__}, not as a state dict; {AGAIN}"
        )
    return state_dict, content.get(CONFIG_KEY)


def _from_tensors(
    tensors: Mapping[Any, Any], embedded: Any, path: Path, like: TransformerConfig | None
) -> Checkpoint:
    """Tensors in either's names, and our configuration as JSON where we wrote it."""
    given, positions, null = _without_buffers(tensors, path)
    state_dict = _in_our_names(given, path)
    config = _understood(state_dict, positions, embedded, path, like)
    if null is not None and embedded is not None and not null.any():
        null = None  # we fill the slot with zeros where no null caption is known
    return Checkpoint(config, state_dict, _null_caption(null, state_dict, config, path), str(path))


def _without_buffers(
    tensors: Mapping[Any, Any], path: Path
) -> tuple[dict[str, Tensor], Tensor | None, Tensor | None]:
    """→ (what a file calls its weights, checked; its official positions; its official null caption)."""
    given = check_tensors(tensors, str(path))
    positions, null = given.pop(POSITIONS, None), given.pop(OFFICIAL_NULL_CAPTION, None)
    return given, positions, null


def _understood(
    state_dict: Mapping[str, Tensor],
    positions: Tensor | None,
    embedded: Any,
    path: Path,
    like: TransformerConfig | None,
) -> TransformerConfig:
    """A file's configuration: as it says, as its tensors tell, or as its name does."""
    if embedded is not None and like is not None:
        raise WeightsError(f"{path} says what it is; leave out --like")
    if embedded is not None:
        return _config_of(_embedded_json(embedded, path), state_dict, path)
    release = find_release(path)
    known = released_config(release) if release is not None else None
    # A file's own position buffer says more than its name.
    return infer_config(state_dict, positions, like or (known if positions is None else None), str(path))


def _in_our_names(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    if _OFFICIAL not in tensors and _OURS in tensors:
        return tensors
    if _OFFICIAL not in tensors:
        raise WeightsError(
            f"{path} holds no PixArt transformer: neither {_OFFICIAL} nor {_OURS}, but "
            f"{abbreviate(sorted(tensors)) or 'nothing'}; name another file"
        )
    try:
        state_dict, unknown = from_official(tensors)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    if unknown:
        raise WeightsError(f"{path} holds what no PixArt has: {abbreviate(sorted(unknown))}; {AGAIN}")
    return state_dict


def _embedded_json(embedded: Any, path: Path) -> dict[str, Any]:
    try:
        content = json.loads(embedded)
    except (ValueError, TypeError, RecursionError) as error:
        raise WeightsError(f"{path} has a {CONFIG_KEY} that is no JSON; {AGAIN}") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} has a {CONFIG_KEY} that is no JSON object; {AGAIN}")
    return content


def _config_of(content: Mapping[str, Any], names: Any, source: Path) -> TransformerConfig:
    """As `transformer_config`, the file named."""
    try:
        return transformer_config(content, names)
    except WeightsError as error:
        # The file may be called otherwise, or be one of weights that carries it.
        raise WeightsError(f"{source}{str(error).removeprefix(CONFIG_FILE)}") from error


def _null_caption(
    found: Tensor | None, state_dict: dict[str, Tensor], config: TransformerConfig, path: Path
) -> Tensor | None:
    """The official slot's, or the side file's, or the one that the first converter to diffusers' names left among the
    weights; those buffers are taken out of the state dict.
    """
    old = {name: state_dict.pop(name) for name in DROPPED if name in state_dict}.get(OLD_NULL_CAPTION)
    if found is not None:
        return _checked_null(found, config.caption_channels, OFFICIAL_NULL_CAPTION, path)
    side = null_caption_file(path)
    if side is not None and side.is_file():
        return read_null_caption(side, config.caption_channels)
    return old if old is not None and old.ndim == 2 and old.shape[1] == config.caption_channels else None


def _checked_null(null: Tensor, caption_channels: int, name: str, path: Path) -> Tensor:
    if null.ndim != 2 or null.shape[1] != caption_channels or not math.prod(null.shape):
        raise WeightsError(
            f"{path} has {name} of shape {list(null.shape)}; it must be (caption tokens, {caption_channels}): {AGAIN}"
        )
    return null
