"""The transformer's module from its weights, strictly, and back to files; its rebuilding with compressed
keys and values.

A folder holds `config.json` and `diffusion_pytorch_model.safetensors`, or several such files and an index that
says which tensor is where, as diffusers writes them. Knows nothing of prompts or images, nor of what other formats
look like.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import Tensor, nn

from pixart_sigma.encoders.pretrained import abbreviate, first_line
from pixart_sigma.errors import InvalidInput, WeightsError
from pixart_sigma.model.config import KVCompression, TransformerConfig
from pixart_sigma.model.int8 import int8_layers
from pixart_sigma.model.transformer import PixArtTransformer
from pixart_sigma.weights.atomic import written_whole
from pixart_sigma.weights.checkpoint import CONFIG_FILE, INDEX_FILE, read_checkpoint
from pixart_sigma.weights.config import config_content
from pixart_sigma.weights.inference import block_number, block_numbers

SHARD_PATTERN = "diffusion_pytorch_model{suffix}.safetensors"
DEFAULT_SHARD_SIZE = "10GB"  # diffusers' own
# Beyond, names are not worth listing, and a number from a file decides how long it would take.
MOST_BLOCKS_MISSING = 64
COMPRESSION_PARAMETERS = ".attn1.kv_compression."


def load_transformer(path: Path | str, dtype: torch.dtype = torch.float32) -> PixArtTransformer:
    """A transformer's folder, official .pth or single .safetensors → the model in eval mode on the CPU, in dtype.

    Raises WeightsError if a file is missing or corrupt, or if names or shapes differ beyond the known buffers.
    """
    checkpoint = read_checkpoint(path)
    model = build(checkpoint.config, checkpoint.state_dict, checkpoint.source)
    return model.to(dtype).eval()


def save_transformer(
    model: PixArtTransformer, folder: Path | str, max_shard_size: str = DEFAULT_SHARD_SIZE
) -> None:
    """Writes config.json and the weights, in the model's own dtype; each file appears whole or not at all.

    max_shard_size, such as "10MB": no file of weights is larger, unless a single tensor is.
    """
    state_dict = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    write_folder(model.config, state_dict, Path(folder), max_shard_size)


def write_folder(
    config: TransformerConfig,
    state_dict: Mapping[str, Tensor],
    folder: Path,
    max_shard_size: str = DEFAULT_SHARD_SIZE,
) -> None:
    """As `save_transformer`, for a configuration and its tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in state_dict.items()}
    split = split_torch_state_dict_into_shards(
        tensors, filename_pattern=SHARD_PATTERN, max_shard_size=max_shard_size
    )
    for name, tensor_names in split.filename_to_tensors.items():
        with written_whole(folder / name) as temporary:
            shard = {tensor_name: tensors[tensor_name] for tensor_name in tensor_names}
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
    with written_whole(folder / CONFIG_FILE) as temporary:
        temporary.write_text(json.dumps(config_content(config), indent=2) + "\n", "utf-8")


def build(config: TransformerConfig, state_dict: Mapping[str, Tensor], source: str) -> PixArtTransformer:
    """A configuration and exactly its parameters → the model, which holds these very tensors.

    source: where they come from, for messages. Raises WeightsError if a name or a shape differs.
    """
    num_blocks = len(block_numbers(state_dict))
    if config.num_layers > num_blocks + MOST_BLOCKS_MISSING:
        raise WeightsError(
            f"{source} has {num_blocks} blocks, its configuration says {config.num_layers}; export it again"
        )
    try:
        with torch.device("meta"):
            model = PixArtTransformer(config)
    except (RuntimeError, TypeError, OverflowError) as error:  # sizes whose product no integer holds
        raise WeightsError(
            f"the configuration of {source} makes no model ({first_line(error)}); export it again"
        ) from error
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
            f"weights in {source} do not fit their configuration; {'; '.join(found)}; export them again"
        )
    model.load_state_dict(dict(state_dict), assign=True)
    return model


def with_kv_compression(model: PixArtTransformer, compression: KVCompression) -> PixArtTransformer:
    """The same parameters, not copies of them, with this compression in the place of whatever the model has.

    Without training for every operator but `conv` (paper section 3.2), which takes the window, the norm and the
    weights that the model has, in all or some of its compressed blocks. Raises InvalidInput where it has none.
    """
    # The very parameters: where weights go to another place, the model's own go along, and are not there twice.
    parameters: dict[str, Tensor] = dict(model.state_dict(keep_vars=True))
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    quantised = int8_layers(model)
    for name, layer in quantised.items():  # there is nothing to build them with; they go along as they are
        for own in layer.state_dict():
            del parameters[f"{name}.{own}"]
        plain = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        parameters |= {f"{name}.{own}": tensor for own, tensor in plain.state_dict().items()}
    if compression.operator == "conv":
        compression = replace(compression, norm=trained_compression(model.config, compression).norm)
    for name in list(parameters):
        if COMPRESSION_PARAMETERS in name and not (
            compression.operator == "conv" and block_number(name) in compression.blocks
        ):
            del parameters[name]
    compressed = build(replace(model.config, kv_compression=compression), parameters, "the model")
    for name, layer in quantised.items():
        compressed.set_submodule(name, layer)
    for parameter in frozen:  # to be built into a module made them learn
        parameter.requires_grad_(False)
    compressed.train(model.training)
    return compressed


def without_kv_compression(model: PixArtTransformer) -> PixArtTransformer:
    """The same parameters, every token with a key and a value of its own."""
    kept = {name: weight for name, weight in model.state_dict().items() if COMPRESSION_PARAMETERS not in name}
    return build(replace(model.config, kv_compression=None), kept, "the model").train(model.training)


def trained_compression(config: TransformerConfig, wanted: KVCompression) -> KVCompression:
    """The model's own compression, whose convolutions include those that are wanted; InvalidInput if they do not."""
    own = config.kv_compression
    if own is None or own.operator != "conv":
        raise InvalidInput("operator 'conv' needs weights that this model was not trained with; use average")
    if own.window != wanted.window:
        raise InvalidInput(
            f"operator 'conv' of this model has a window of {own.window[0]}x{own.window[1]}, not "
            f"{wanted.window[0]}x{wanted.window[1]}; use that one, or average"
        )
    lacking = sorted(set(wanted.blocks) - set(own.blocks))
    if lacking:
        raise InvalidInput(
            f"operator 'conv' has no weights in block {lacking[0]}, this model has them in "
            f"{', '.join(map(str, own.blocks))}; name some of these, or use average"
        )
    return own
