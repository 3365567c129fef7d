"""A `Checkpoint` → any of the formats: official, diffusers, single-file. What `read_checkpoint` reads back bit by bit.

Knows nothing of modules or pipelines. What appears appears whole, or nothing does.
"""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from pixart_sigma.encoders.pretrained import first_line
from pixart_sigma.errors import InvalidInput, WeightsError
from pixart_sigma.model.config import TransformerConfig
from pixart_sigma.model.embeddings import position_embedding
from pixart_sigma.weights.atomic import folder_written_whole, written_whole
from pixart_sigma.weights.catalogue import release_named, releases
from pixart_sigma.weights.checkpoint import (
    CONFIG_KEY,
    NULL_CAPTION,
    NULL_CAPTION_FILE,
    OFFICIAL_NULL_CAPTION,
    POSITIONS,
    Checkpoint,
    null_caption_file,
    read_checkpoint,
    read_config,
    read_null_caption,
)
from pixart_sigma.weights.config import config_content, released_config
from pixart_sigma.weights.formats import TRANSFORMER, Format
from pixart_sigma.weights.keys import to_official
from pixart_sigma.weights.tensor_files import SAFETENSORS
from pixart_sigma.weights.transformer import build, write_folder

DEFAULT_CAPTION_LENGTH = 300  # Σ


def convert(
    source: Path,
    target: Path,
    target_format: Format,
    *,
    ema: bool = False,
    like: str | None = None,
    dtype: str | None = None,
    null_caption: Path | None = None,
) -> Path:
    """A transformer's folder or file → the same in another format, in the place of whatever is at target.

    ema: see `read_checkpoint`. like: a released model's name, or a folder or file that says what it is. dtype: by
    name; as in the source by default. null_caption: a file that has one, where the source has none. Returns what was
    written: a file, or the folder target/transformer.
    Raises WeightsError for a source that is broken or does not say enough, and for a target that cannot be written;
    InvalidInput for options that would be ignored. After an error all is as it was.
    """
    checkpoint = read_checkpoint(source, ema, _like(like))
    if null_caption is not None:
        if checkpoint.null_caption is not None:
            raise InvalidInput(f"{source} has its own null caption; leave out --null-caption {null_caption}")
        found = _null_caption_from(null_caption, checkpoint.config.caption_channels)
        checkpoint = replace(checkpoint, null_caption=found)
    if dtype is not None:
        checkpoint = with_dtype(checkpoint, getattr(torch, dtype))
    return write_checkpoint(checkpoint, target, target_format)


def _like(like: str | None) -> TransformerConfig | None:
    if like is None:
        return None
    path = Path(like)
    if like not in releases() and path.exists():
        return read_config(path / TRANSFORMER if (path / TRANSFORMER).is_dir() else path)
    return released_config(release_named(like))


def _null_caption_from(path: Path, caption_channels: int) -> Tensor:
    if path.suffix == SAFETENSORS:
        return read_null_caption(path, caption_channels)
    null = read_checkpoint(path).null_caption
    if null is None:
        raise WeightsError(f"{path} has no null caption; name another file (--null-caption)")
    if null.shape[1] != caption_channels:
        raise WeightsError(
            f"{path} has a null caption of {null.shape[1]} channels, the model takes {caption_channels}; name another"
        )
    return null


def with_dtype(checkpoint: Checkpoint, dtype: torch.dtype) -> Checkpoint:
    """The same weights rounded to a dtype; the null caption is the text encoder's and stays as it is."""
    return replace(
        checkpoint, state_dict={name: tensor.to(dtype) for name, tensor in checkpoint.state_dict.items()}
    )


def write_checkpoint(checkpoint: Checkpoint, target: Path, target_format: Format) -> Path:
    """Write it, in the place of whatever is there; after an error all is as it was. Returns what was written.

    `diffusers`: the folder target/transformer. `official`: a .pth. `single-file`: a .safetensors in diffusers' names.
    Where the null caption has no place in the format it is written beside the weights. Raises WeightsError if weights
    and configuration do not fit, before anything is written, or if the disk refuses them.
    """
    build(checkpoint.config, checkpoint.state_dict, checkpoint.source)
    write = {"diffusers": _write_diffusers, "official": _write_official, "single-file": _write_single_file}
    try:
        return write[target_format](checkpoint, target)
    except OSError as error:
        raise WeightsError(_refused(target, error.strerror or first_line(error))) from error
    except (SafetensorError, RuntimeError) as error:  # how the libraries report a disk that refuses
        raise WeightsError(_refused(target, first_line(error))) from error


def _refused(target: Path, reason: str) -> str:
    return f"{target} cannot be written ({reason}); check the path and the space left: nothing was changed"


def _write_diffusers(checkpoint: Checkpoint, target: Path) -> Path:
    place = target / TRANSFORMER if target.is_dir() else target
    with folder_written_whole(place) as temporary:
        folder = temporary if place != target else temporary / TRANSFORMER
        write_folder(checkpoint.config, checkpoint.state_dict, folder)
        if checkpoint.null_caption is not None:
            _write_null_caption(checkpoint.null_caption, folder / NULL_CAPTION_FILE)
    return target / TRANSFORMER


def _write_single_file(checkpoint: Checkpoint, target: Path) -> Path:
    metadata = {"format": "pt", CONFIG_KEY: json.dumps(config_content(checkpoint.config), sort_keys=True)}
    tensors = {name: tensor.contiguous() for name, tensor in checkpoint.state_dict.items()}
    side = null_caption_file(target)
    with written_whole(target) as temporary:
        save_file(tensors, temporary, metadata=metadata)
        if checkpoint.null_caption is not None:
            _write_null_caption(checkpoint.null_caption, side)
        else:
            side.unlink(missing_ok=True)  # of a file that this one takes the place of
    return target


def _write_null_caption(null_caption: Tensor, path: Path) -> None:
    with written_whole(path) as temporary:
        save_file({NULL_CAPTION: null_caption.contiguous()}, temporary)


def _write_official(checkpoint: Checkpoint, target: Path) -> Path:
    config = checkpoint.config
    null = checkpoint.null_caption
    if null is None:
        warnings.warn(
            f"{checkpoint.source} has no null caption: {OFFICIAL_NULL_CAPTION} is written as zeros, with which the "
            "official samplers' guidance goes wrong; name a file that has it with --null-caption",
            stacklevel=3,
        )
        null = torch.zeros(DEFAULT_CAPTION_LENGTH, config.caption_channels)
    grid = (config.base_grid, config.base_grid)
    positions = position_embedding(
        grid, config.width, config.base_grid, config.interpolation_scale, torch.device("cpu")
    )
    state_dict = to_official(checkpoint.state_dict)
    # A view would take what it is a view of into the file.
    state_dict = {
        name: tensor.clone() if tensor.untyped_storage().nbytes() != tensor.nbytes else tensor.contiguous()
        for name, tensor in {
            POSITIONS: positions.float()[None],
            OFFICIAL_NULL_CAPTION: null,
            **state_dict,
        }.items()
    }
    content = {"state_dict": state_dict, CONFIG_KEY: json.dumps(config_content(config), sort_keys=True)}
    with written_whole(target) as temporary:
        torch.save(content, temporary)
    return target
