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
from pixart_sigma.weights.catalogue import find_release, release_named, releases
from pixart_sigma.weights.checkpoint import (
    CONFIG_KEY,
    NULL_CAPTION,
    OFFICIAL_NULL_CAPTION,
    POSITIONS,
    Checkpoint,
    read_checkpoint,
    read_config,
    read_null_caption,
)
from pixart_sigma.weights.config import config_content, released_config
from pixart_sigma.weights.folder import family_caption_length
from pixart_sigma.weights.formats import (
    NULL_CAPTION_FILE,
    SAFETENSORS,
    TRANSFORMER,
    Format,
    null_caption_file,
)
from pixart_sigma.weights.keys import to_official
from pixart_sigma.weights.transformer import build, write_folder


def convert(
    source: Path,
    target: Path,
    target_format: Format,
    *,
    ema: bool = False,
    like: str | None = None,
    dtype: str | None = None,
    null_caption: Path | None = None,
    caption_length: int | None = None,
) -> Path:
    """A transformer's folder or file → the same in another format, in the place of whatever is at target.

    ema: see `read_checkpoint`. like: a released model's name, or a folder or file that says what it is. dtype: by
    name; as in the source by default. null_caption: a file that has one, where the source has none. caption_length: as
    for `write_checkpoint`; a release named by `like` knows it. Returns what was written: a file, or the folder
    target/transformer.
    Raises WeightsError for a source that is broken or does not say enough, for a dtype that cannot hold its numbers,
    and for a target that cannot be written; InvalidInput for options that would be ignored. After an error all is as
    it was.
    """
    checkpoint = read_checkpoint(source, ema, _like(like))
    if null_caption is not None:
        if checkpoint.null_caption is not None:
            raise InvalidInput(f"{source} has its own null caption; leave out --null-caption {null_caption}")
        found = _null_caption_from(null_caption, checkpoint.config.caption_channels)
        checkpoint = replace(checkpoint, null_caption=found)
    if dtype is not None:
        checkpoint = with_dtype(checkpoint, getattr(torch, dtype))
    release = find_release(like) if like is not None else None
    if release is not None:
        caption_length = release.caption_length
    return write_checkpoint(checkpoint, target, target_format, caption_length)


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
    """The same weights rounded to a dtype; the null caption is the text encoder's and stays as it is.

    Raises WeightsError if a finite number would become infinite.
    """
    rounded = {name: tensor.to(dtype) for name, tensor in checkpoint.state_dict.items()}
    for name, tensor in checkpoint.state_dict.items():
        beyond = rounded[name].isinf() & tensor.isfinite()
        if beyond.any():
            raise WeightsError(
                f"{checkpoint.source} has {tensor[beyond][0].item():.3g} in {name}, too large for "
                f"{str(dtype).removeprefix('torch.')}; choose another --dtype"
            )
    return replace(checkpoint, state_dict=rounded)


def write_checkpoint(
    checkpoint: Checkpoint, target: Path, target_format: Format, caption_length: int | None = None
) -> Path:
    """Write it, in the place of whatever is there; after an error all is as it was. Returns what was written.

    `diffusers`: the folder target/transformer. `official`: a .pth. `single-file`: a .safetensors in diffusers' names.
    Where the null caption has no place in the format it is written beside the weights. caption_length: the model's, for
    an official file without a null caption; by default its family's, as far as its weights tell that. Raises
    WeightsError if weights and configuration do not fit, before anything is written, or if the disk refuses them.
    """
    build(checkpoint.config, checkpoint.state_dict, checkpoint.source)
    try:
        if target_format == "official":
            return _write_official(checkpoint, target, caption_length)
        write = {"diffusers": _write_diffusers, "single-file": _write_single_file}[target_format]
        return write(checkpoint, target)
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
            _save_null_caption(checkpoint.null_caption, folder / NULL_CAPTION_FILE)
    return target / TRANSFORMER


def _write_single_file(checkpoint: Checkpoint, target: Path) -> Path:
    metadata = {"format": "pt", CONFIG_KEY: json.dumps(config_content(checkpoint.config), sort_keys=True)}
    tensors = {name: tensor.contiguous() for name, tensor in checkpoint.state_dict.items()}
    side = null_caption_file(target)
    if side is None:
        raise InvalidInput(f"{target} is no file's name for single-file; let it end in {SAFETENSORS}")
    if checkpoint.null_caption is None:
        with written_whole(target) as temporary:
            save_file(tensors, temporary, metadata=metadata)
        side.unlink(missing_ok=True)  # of a file that this one took the place of
        return target
    # Both are whole before either takes its place, and the weights go first.
    with written_whole(side) as temporary_side, written_whole(target) as temporary:
        save_file(tensors, temporary, metadata=metadata)
        _save_null_caption(checkpoint.null_caption, temporary_side)
    return target


def _save_null_caption(null_caption: Tensor, path: Path) -> None:
    save_file({NULL_CAPTION: null_caption.contiguous()}, path)


def _write_official(checkpoint: Checkpoint, target: Path, caption_length: int | None) -> Path:
    config = checkpoint.config
    unknown = _beyond_the_official_code(config)
    if unknown:
        warnings.warn(
            f"{target} has {unknown}, which the official code does not have: only this package reads that; "
            "elsewhere the pictures come out wrong",
            stacklevel=3,
        )
    null = checkpoint.null_caption
    if null is None:
        warnings.warn(
            f"{checkpoint.source} has no null caption: {OFFICIAL_NULL_CAPTION} is written as zeros, with which the "
            "official samplers' guidance goes wrong; name a file that has it with --null-caption",
            stacklevel=3,
        )
        if config.micro_conditioning or caption_length is None:
            caption_length = family_caption_length("alpha" if config.micro_conditioning else "sigma")
        null = torch.zeros(caption_length, config.caption_channels)
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


def _beyond_the_official_code(config: TransformerConfig) -> str:
    """What of a configuration no official file can say, in words; "" if there is nothing."""
    compression = config.kv_compression
    if compression is None:
        return ""
    height, width = compression.window
    found = []
    if compression.operator != "conv":
        found.append(f"operator {compression.operator!r}")
    elif not compression.norm:
        found.append("a convolution without norm")
    if height != width:
        found.append(f"window {height}x{width}")
    if compression.from_tokens:
        found.append(f"from_tokens {compression.from_tokens}")
    return f"KV compression with {', '.join(found)}" if found else ""
