"""Strict loading and saving of the transformer, and its rebuilding with compressed keys and values.

A folder holds `config.json` and `diffusion_pytorch_model.safetensors`, or several such files and an index that
says which tensor is where, as diffusers writes them. Never unpickles. Knows nothing of prompts or images.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pixart_sigma.encoders.pretrained import abbreviate, first_line
from pixart_sigma.errors import WeightsError
from pixart_sigma.model.config import KVCompression, TransformerConfig
from pixart_sigma.model.transformer import PixArtTransformer
from pixart_sigma.weights.atomic import written_whole
from pixart_sigma.weights.config import config_content, transformer_config
from pixart_sigma.weights.folder import read_json

WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
INDEX_FILE = f"{WEIGHTS_FILE}.index.json"
SHARD_PATTERN = "diffusion_pytorch_model{suffix}.safetensors"
DEFAULT_SHARD_SIZE = "10GB"  # diffusers' own
# Buffers that early diffusers releases wrote into checkpoints: expected, and dropped.
DROPPED = {
    "pos_embed.pos_embed": "positions are recomputed",
    "caption_projection.y_embedding": "the null caption is encoded from an empty prompt",
}
COMPRESSION_PARAMETERS = ".attn1.kv_compression."


def load_transformer(folder: Path | str, dtype: torch.dtype = torch.float32) -> PixArtTransformer:
    """A transformer's folder → the model in eval mode on the CPU, in dtype.

    Raises WeightsError if a file is missing or corrupt, or if names or shapes differ beyond `DROPPED`.
    """
    folder = Path(folder)
    content = read_json(folder / "config.json")
    state_dict = (
        read_sharded_weights(folder)
        if (folder / INDEX_FILE).is_file()
        else read_weights(folder / WEIGHTS_FILE)
    )
    for name in DROPPED:
        state_dict.pop(name, None)
    config = transformer_config(content, state_dict.keys())
    model = build(config, {name: tensor.to(dtype) for name, tensor in state_dict.items()}, str(folder))
    model.eval()
    return model


def save_transformer(
    model: PixArtTransformer, folder: Path | str, max_shard_size: str = DEFAULT_SHARD_SIZE
) -> None:
    """Writes config.json and the weights, in the model's own dtype; each file appears whole or not at all.

    max_shard_size, such as "10MB": no file of weights is larger, unless a single tensor is.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state_dict = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    split = split_torch_state_dict_into_shards(
        state_dict, filename_pattern=SHARD_PATTERN, max_shard_size=max_shard_size
    )
    for name, tensor_names in split.filename_to_tensors.items():
        with written_whole(folder / name) as temporary:
            shard = {tensor_name: state_dict[tensor_name] for tensor_name in tensor_names}
            save_file(shard, temporary, metadata={"format": "pt"})
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        with written_whole(folder / INDEX_FILE) as temporary:
            temporary.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", "utf-8")
    else:
        (folder / INDEX_FILE).unlink(missing_ok=True)
    # Files of an earlier save in other shards would be taken for this model's.
    for path in folder.glob(SHARD_PATTERN.format(suffix="*")):
        if path.name not in split.filename_to_tensors:
            path.unlink()
    with written_whole(folder / "config.json") as temporary:
        temporary.write_text(json.dumps(config_content(model.config), indent=2) + "\n", "utf-8")


def read_weights(path: Path) -> dict[str, Tensor]:
    """A .safetensors file → its tensors. Raises WeightsError if it is missing or corrupt."""
    if not path.is_file():
        raise WeightsError(f"weight file {path} is missing; fetch or export it again")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            f"weight file {path} is corrupt ({first_line(error)}); fetch or export it again"
        ) from error


def read_sharded_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of all the files that a folder's index names.

    Raises WeightsError if one is missing or corrupt, lies outside the folder, or holds other tensors than the index
    says.
    """
    weight_map = read_json(folder / INDEX_FILE).get("weight_map")
    if not isinstance(weight_map, dict) or not all(
        Path(str(name)).name == name for name in weight_map.values()
    ):
        raise WeightsError(
            f"{folder / INDEX_FILE} maps no tensors to files beside it; fetch or export it again"
        )
    state_dict: dict[str, Tensor] = {}
    for name in sorted(set(weight_map.values())):
        state_dict |= read_weights(folder / name)
    if state_dict.keys() != weight_map.keys():
        differing = abbreviate(sorted(state_dict.keys() ^ weight_map.keys()))
        raise WeightsError(
            f"{folder / INDEX_FILE} does not fit its files: {differing}; fetch or export them again"
        )
    return state_dict


def build(config: TransformerConfig, state_dict: Mapping[str, Tensor], source: str) -> PixArtTransformer:
    """A configuration and exactly its parameters → the model, which holds these very tensors.

    source: where they come from, for messages. Raises WeightsError if a name or a shape differs.
    """
    with torch.device("meta"):
        model = PixArtTransformer(config)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    problems = {
        "missing": sorted(shapes.keys() - state_dict.keys()),
        "unexpected": sorted(state_dict.keys() - shapes.keys()),
        "wrong shape": [
            f"{name} {list(tensor.shape)} instead of {list(shapes[name])}"
            for name, tensor in state_dict.items()
            if name in shapes and tensor.shape != shapes[name]
        ],
    }
    found = [f"{problem}: {abbreviate(names)}" for problem, names in problems.items() if names]
    if found:
        raise WeightsError(
            f"weights in {source} do not fit their config.json; {'; '.join(found)}; export them again"
        )
    model.load_state_dict(dict(state_dict), assign=True)
    return model


def with_average_compression(model: PixArtTransformer, window: tuple[int, int]) -> PixArtTransformer:
    """The same parameters, with keys and values averaged over a window (height, width) in the deeper half of
    the blocks.

    Training-free (paper section 3.2: the deeper half compresses at the least cost); replaces whatever
    compression the model has. Raises InvalidInput for a window that compresses nothing.
    """
    num_layers = model.config.num_layers
    compression = KVCompression(window, "average", tuple(range(num_layers // 2, num_layers)))
    parameters = {
        name: tensor for name, tensor in model.state_dict().items() if COMPRESSION_PARAMETERS not in name
    }
    compressed = build(replace(model.config, kv_compression=compression), parameters, "the model")
    compressed.train(model.training)
    return compressed
