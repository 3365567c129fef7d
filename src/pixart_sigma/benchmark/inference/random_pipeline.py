"""A pipeline's folder with random weights, in diffusers' layout, written part by part, as large as the shapes say.

Both sides load the same files; on the CPU they map them, so that the weights are in memory once for all. Weights are
drawn a shard at a time. Knows nothing of what is done with the folder.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from pixart_sigma.benchmark.inference.scenarios import Part, Scenario, Shapes
from pixart_sigma.encoders.text import SIGMA_CAPTION_LENGTH
from pixart_sigma.model import PixArtTransformer
from pixart_sigma.training.pipeline_folder import build_scheduler, write_scheduler
from pixart_sigma.weights.config import config_content

SHARD_BYTES = 2**30
MODEL_INDEX = {
    "_class_name": "PixArtSigmaPipeline",
    "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
    "text_encoder": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
    "transformer": ["diffusers", "PixArtTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
_SPECIAL_TOKENS = ("<pad>", "</s>", "<unk>")
_DRAWS_OF_QUERIES = ".SelfAttention.q.weight"
_T5_HEAD_DIM = 64
_BIAS_STD = 0.02
_CAPTION_GAIN = 0.1


class RandomPipeline:
    """A folder that is given, scenario by scenario, the parts that it lacks; weights in dtype, always the same."""

    def __init__(self, folder: Path, dtype: torch.dtype, device: torch.device) -> None:
        self.folder = folder
        self._dtype = dtype
        self._device = device
        self._written: dict[Part, Shapes] = {}

    def provide(self, scenario: Scenario) -> None:
        """Write the parts of a scenario, but for those that are there already. Nobody may be reading the folder."""
        for part in scenario.parts:
            shapes = scenario.shapes
            if part in self._written and _shape_of(part, shapes) == _shape_of(part, self._written[part]):
                continue
            shutil.rmtree(self.folder / part, ignore_errors=True)
            self._write(part, shapes)
            self._written[part] = shapes
        _write_json(self.folder / "model_index.json", MODEL_INDEX)

    def _write(self, part: Part, shapes: Shapes) -> None:
        folder = self.folder / part
        folder.mkdir(parents=True)
        if part == "transformer":
            _write_transformer(folder, shapes, self._dtype, self._device)
        elif part == "text_encoder":
            _write_text_encoder(folder, shapes, self._dtype, self._device)
        elif part == "vae":
            _write_autoencoder(folder, shapes, self._dtype, self._device)
        elif part == "tokenizer":
            _write_tokenizer(folder, shapes)
        else:
            write_scheduler(build_scheduler("epsilon"), folder)


def _shape_of(part: Part, shapes: Shapes) -> object:
    """What a part's files depend on."""
    if part == "transformer":
        return shapes.transformer
    if part in ("text_encoder", "tokenizer"):
        return shapes.text_encoder
    return shapes.autoencoder, shapes.scaling_factor, shapes.norm_groups


def _write_transformer(folder: Path, shapes: Shapes, dtype: torch.dtype, device: torch.device) -> None:
    with torch.device("meta"):
        model = PixArtTransformer(shapes.transformer)
    _write_json(folder / "config.json", config_content(shapes.transformer))
    _write_weights(folder, "diffusion_pytorch_model", model.state_dict(), dtype, device)


def _write_text_encoder(folder: Path, shapes: Shapes, dtype: torch.dtype, device: torch.device) -> None:
    from transformers.models.t5.configuration_t5 import T5Config
    from transformers.models.t5.modeling_t5 import T5EncoderModel

    shape = shapes.text_encoder
    config = T5Config(
        vocab_size=shape.vocabulary_size,
        d_model=shape.width,
        d_kv=shape.head_dim,
        d_ff=shape.feed_forward_width,
        num_layers=shape.num_layers,
        num_heads=shape.num_heads,
        relative_attention_num_buckets=shape.relative_buckets,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        model = T5EncoderModel(config)
    config.architectures = ["T5EncoderModel"]
    config.save_pretrained(folder)
    # The vocabulary has two names in the model, and one in its files.
    weights = {name: weight for name, weight in model.state_dict().items() if "embed_tokens" not in name}
    _write_weights(folder, "model", weights, dtype, device)


def _write_autoencoder(folder: Path, shapes: Shapes, dtype: torch.dtype, device: torch.device) -> None:
    with torch.device("meta"):
        model = build_autoencoder(shapes)
    model.save_config(folder)
    _write_weights(folder, "diffusion_pytorch_model", model.state_dict(), dtype, device)


def build_autoencoder(shapes: Shapes) -> Any:
    """diffusers' `AutoencoderKL` of that shape, with whatever weights it starts with."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    shape = shapes.autoencoder
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(shape.channels),
        up_block_types=("UpDecoderBlock2D",) * len(shape.channels),
        block_out_channels=shape.channels,
        layers_per_block=shape.layers_per_block,
        latent_channels=shape.latent_channels,
        norm_num_groups=shapes.norm_groups,
        mid_block_add_attention=shape.middle_attention,
        scaling_factor=shapes.scaling_factor,
    )


def _write_tokenizer(folder: Path, shapes: Shapes) -> None:
    """A token a word: w0, w1 and so on, and T5's special ones."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers.tokenization_utils_tokenizers import PreTrainedTokenizerFast

    num_words = shapes.text_encoder.vocabulary_size - len(_SPECIAL_TOKENS)
    words = (*_SPECIAL_TOKENS, *(f"w{index}" for index in range(num_words)))
    vocabulary = {token: index for index, token in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=SIGMA_CAPTION_LENGTH,
    ).save_pretrained(folder)


def _write_weights(
    folder: Path, stem: str, shapes: Mapping[str, Tensor], dtype: torch.dtype, device: torch.device
) -> None:
    """Several files with an index, as both libraries write large models; one file without, if it is small."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, weight in shapes.items():
        num_bytes = weight.numel() * dtype.itemsize
        if shards[-1] and size + num_bytes > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += num_bytes
    generator = torch.Generator(device).manual_seed(0)
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        suffix = f"-{number:05}-of-{len(shards):05}" if len(shards) > 1 else ""
        file = f"{stem}{suffix}.safetensors"
        weights = {name: _draw(name, shapes[name].shape, generator).to("cpu", dtype) for name in names}
        save_file(weights, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(names, file)
    if len(shards) > 1:
        total = sum(weight.numel() for weight in shapes.values()) * dtype.itemsize
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        _write_json(folder / f"{stem}.safetensors.index.json", index)


def _draw(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """float32 on the generator's device: norms about one, biases small, everything else keeps its input's spread.

    Three exceptions keep activations as tame as trained ones. T5 scales its queries in their weights. A block's caption
    branch is weak, since guidance multiplies the difference it makes by nine and a sampler feeds it back twenty times.
    """
    values = torch.randn(shape, generator=generator, device=generator.device)
    if len(shape) == 1:
        return values * _BIAS_STD + (0.0 if name.endswith("bias") else 1.0)
    if name == "shared.weight":
        return values
    spread = float(shape[1:].numel()) ** -0.5
    if name.endswith(_DRAWS_OF_QUERIES):
        spread *= _T5_HEAD_DIM**-0.5
    if name.endswith("attn2.to_out.0.weight"):
        spread *= _CAPTION_GAIN
    return values * spread


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
