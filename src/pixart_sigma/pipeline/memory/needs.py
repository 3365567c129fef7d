"""A model's folders and a request → what each stage takes of a device, in each of the ways in which it can run.

Reads configurations and the headers of weights, and no weights; the prompts are tokenised, since a caption's length
counts. Weights in the dtype that is computed in are used on the CPU where the file is mapped, and take no memory of
their own; otherwise a copy is made.

Legend: B pictures, K blocks, L caption tokens, D width, C channels of the text encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from pixart_sigma.encoders.autoencoder_memory import (
    least_decode_bytes,
    predict_decode_bytes,
    spilled_decode_bytes,
)
from pixart_sigma.encoders.blended_tiles import TILE_SIDES
from pixart_sigma.encoders.t5 import PACKED_TOKENS, T5Config
from pixart_sigma.encoders.t5_files import read_t5_config
from pixart_sigma.encoders.text_holds import TEXT_HOLDS, TextHold
from pixart_sigma.encoders.tiling import Tiling, TilingMethod, find_spill_folder
from pixart_sigma.encoders.tokenizer import Tokenizer
from pixart_sigma.model.activation_memory import activation_bytes, condition_bytes
from pixart_sigma.model.config import TransformerConfig
from pixart_sigma.model.int8_memory import check_int8_width, is_in_8_bits, product_bytes, weight_bytes
from pixart_sigma.pipeline.captions import asked_groups, asks_for_null
from pixart_sigma.pipeline.memory.limit import MIB
from pixart_sigma.pipeline.memory.plan import Needs, PartBytes
from pixart_sigma.pipeline.parts import open_prompt_cache, prompt_length
from pixart_sigma.pipeline.placement.sequence import check_split
from pixart_sigma.pipeline.profiles import Profile
from pixart_sigma.pipeline.prompt_cache import CachedTextEncoder
from pixart_sigma.pipeline.request import Request
from pixart_sigma.pipeline.text_to_image import compression_of
from pixart_sigma.resolution import LATENT_SCALE, TOKEN_SIDE
from pixart_sigma.weights.checkpoint import Checkpoint, read_checkpoint
from pixart_sigma.weights.folder import PipelineFolders, read_json
from pixart_sigma.weights.tensor_files import read_sharded_weights, read_weights

FP32_BYTES = 4
_KERNEL_BYTES = {"cpu": 16 * MIB, "cuda": 32 * MIB}
"""What matrix products keep for themselves: buffers of oneDNN and MKL, tiles of attention, the workspace of cuBLAS."""
_SCHEDULER_COPIES = 12  # latents in fp32 that a scheduler and a step hold at once; they are small
_COPIES = 3  # of an embedding: as it is read or computed, on the device, and padded
_PICTURE_BYTES = 3 + 3 + 4  # of a pixel: 8-bit levels, as a picture, and the strip that is being made
_BLOCKS = "transformer_blocks."
_NF4_BYTES = 0.5 + 4 / 64  # four bits, and a scale in fp32 for 64 of them


def needs_of(
    folders: PipelineFolders,
    request: Request,
    profile: Profile,
    dtype: torch.dtype,
    device: torch.device,
    *,
    adapted: bool,
    process_bytes: int,
    text_hold: TextHold | None = None,
    prompt_cache: Path | None = None,
    int8: bool = False,
    processes: int = 1,
) -> Needs:
    """What this model takes for this request; process_bytes: what is taken already.

    adapted: LoRAs are merged, for which the transformer is in fp32 for a moment. text_hold, prompt_cache, int8: as in
    `Setup`; where all prompts are known, no text encoder is needed. processes: that share each picture.
    Raises WeightsError for files that are missing or broken, InvalidInput for a compression that the model cannot have,
    for a width that int8 does not take, and for a picture that so many processes cannot share.
    """
    checkpoint = read_checkpoint(folders.transformer)
    config = _compressed(checkpoint, request)
    if int8:
        check_int8_width(config)
    height = request.height or config.sample_size * LATENT_SCALE
    width = request.width or config.sample_size * LATENT_SCALE
    size = (height, width)
    num_pictures = len(request.prompts) * request.num_images
    guided = request.guidance_scale > 1
    most = prompt_length(folders, checkpoint.null_caption)
    lengths, pass_tokens = _caption_tokens(
        folders, request, profile, guided, most, asks_for_null(guided, profile, checkpoint.null_caption)
    )
    t5 = read_t5_config(folders["text_encoder"] / "text_encoder")
    embeddings = (len(request.prompts) * lengths[0] + lengths[1]) * t5.d_model * dtype.itemsize
    vae_config = read_json(folders["vae"] / "vae" / "config.json")
    kernels = _KERNEL_BYTES.get(device.type, 0)
    transformer = _loaded(checkpoint.state_dict, dtype, device, copied=adapted, int8=int8)
    merging = 0
    if adapted and device.type == "cpu":  # LoRAs are merged in fp32, before the cast
        whole = sum(weight.numel() for weight in checkpoint.state_dict.values())
        merging = whole * FP32_BYTES - transformer.loaded
    pixels = height * width
    grid = (height // TOKEN_SIDE, width // TOKEN_SIDE)
    if processes > 1:
        check_split(config, grid, processes)

    def denoise_working(pictures: int, together: bool) -> int:
        working = _denoise_bytes(
            config, request, pictures, lengths, guided, together, grid, dtype.itemsize, int8
        )
        working += request.shortcuts.kept_bytes(
            config, grid, request.num_steps, guided, pictures, dtype.itemsize
        )
        if int8:
            working += product_bytes(config, pictures * (1 + (guided and together)) * grid[0] * grid[1])
        latents = num_pictures * config.in_channels * pixels // LATENT_SCALE**2
        return max(embeddings + working + latents * FP32_BYTES * _SCHEDULER_COPIES + kernels, merging)

    def decode_working(tiling: Tiling | None) -> int:
        decoding = predict_decode_bytes(vae_config, *size, dtype.itemsize, tiling, device=device)
        return max(decoding, (3 * dtype.itemsize + _PICTURE_BYTES) * pixels)

    def least_decode(method: TilingMethod, may_spill: bool) -> int:
        return least_decode_bytes(
            vae_config, *size, dtype.itemsize, method, may_spill=may_spill, device=device
        )

    def find_spill() -> Path:
        least = Tiling("exact", least_decode("exact", True), Path())
        return find_spill_folder(
            spilled_decode_bytes(vae_config, *size, dtype.itemsize, least, device=device)
        )

    def open_cache(folder: Path) -> CachedTextEncoder:
        return open_prompt_cache(folders, dtype, most, device, text_hold or "resident", folder)

    known = prompt_cache is not None and _are_known(
        prompt_cache, open_cache, request, profile, checkpoint.null_caption
    )
    if known:
        text = dict.fromkeys(TEXT_HOLDS, PartBytes(0))
        text_working = _COPIES * embeddings
    else:
        weights = _part_weights(folders["text_encoder"] / "text_encoder", "model")
        text = _holds(t5, weights, dtype, device)
        text_working = _text_working(t5, pass_tokens, max(lengths), dtype) + _COPIES * embeddings + kernels
    return Needs(
        process=process_bytes,
        num_pictures=num_pictures,
        guided=guided,
        text=text,
        text_known=known,
        text_working=text_working,
        transformer=transformer,
        visiting=_visiting(checkpoint.state_dict, dtype, int8) if device.type == "cuda" else None,
        denoise_working=denoise_working,
        # Copied, into the order in which convolutions read them.
        autoencoder=_loaded(
            _part_weights(folders["vae"] / "vae", "diffusion_pytorch_model"), dtype, device, copied=True
        ),
        decode_working=decode_working,
        decode_beside=kernels + (num_pictures - 1) * 3 * pixels,  # pictures that are done
        least_decode=least_decode,
        find_spill=find_spill,
        one_tile=max(size) <= TILE_SIDES[0] * LATENT_SCALE,
        int8=int8,
    )


def _compressed(checkpoint: Checkpoint, request: Request) -> TransformerConfig:
    wanted = request.compression
    if wanted is None:
        return checkpoint.config
    return replace(checkpoint.config, kv_compression=compression_of(wanted, checkpoint.config))


def _caption_tokens(
    folders: PipelineFolders, request: Request, profile: Profile, guided: bool, most: int, padded_null: bool
) -> tuple[tuple[int, int], int]:
    """((tokens of the longest caption, of the null branch's), as the transformer sees them, 0 without guidance; those
    that go through the text encoder at a time).
    """
    tokenizer = Tokenizer.from_folder(folders["tokenizer"] / "tokenizer")

    def tokens(text: str) -> int:
        return len(tokenizer.encode([profile.caption(text)], most)[0])

    counts = [tokens(prompt) for prompt in dict.fromkeys(request.prompts)]
    longest = null = max(counts)
    if not guided:
        null = 0
    elif profile.null_mask == "own":
        null = tokens(request.negative_prompt)
        counts.append(null)
    at_a_time = min(sum(counts), max(PACKED_TOKENS, *counts))
    return (longest, null), max(at_a_time, most if padded_null else 0)


def _are_known(
    prompt_cache: Path,
    open_cache: Callable[[Path], CachedTextEncoder],
    request: Request,
    profile: Profile,
    null_caption: Tensor | None,
) -> bool:
    """Whether all that will be asked of the text encoder is in the cache."""
    if not any(prompt_cache.glob("*/*.safetensors")):
        return False  # and the text encoder's gigabytes need not be read for their digest
    guided = request.guidance_scale > 1
    groups = asked_groups(request.prompts, request.negative_prompt, guided, profile)
    asked = [prompt for group in groups for prompt in group]
    return open_cache(prompt_cache).knows(asked, null=asks_for_null(guided, profile, null_caption))


def _holds(
    t5: T5Config, weights: Mapping[str, Tensor], dtype: torch.dtype, device: torch.device
) -> dict[TextHold, PartBytes]:
    stored_otherwise = any(weight.dtype != dtype for weight in weights.values())
    # A block's copy; on a GPU the next one is there already.
    copies = 2 if device.type == "cuda" else int(stored_otherwise)
    whole = _loaded(weights, dtype, device)
    streamed = PartBytes(
        copies * _block_size(t5) * dtype.itemsize, 0 if stored_otherwise else _block_size(t5) * dtype.itemsize
    )
    embeddings = t5.vocab_size * t5.d_model * dtype.itemsize
    wide = t5.num_layers * t5.d_ff * t5.d_model  # `wo`, which bitsandbytes leaves as it is
    narrow = t5.num_layers * _block_size(t5) - wide
    left = embeddings + wide * dtype.itemsize
    # What 8 bits leave as it is stays mapped; of 4 bits it is counted, since their weights are packed anew in memory.
    mapped = device.type == "cpu" and not stored_otherwise
    return {
        "resident": whole,
        "streamed": streamed,
        "int8": PartBytes(narrow, left) if mapped else PartBytes(left + narrow),
        "nf4": PartBytes(left + int(narrow * _NF4_BYTES)),
        "torchao-int8": PartBytes(embeddings + wide + narrow),
    }


def _visiting(weights: Mapping[str, Tensor], dtype: torch.dtype, int8: bool) -> PartBytes:
    """The transformer on a device that its blocks visit: two of them, and what is not in a block."""
    blocks: dict[str, int] = {}
    beside = 0
    for name, weight in weights.items():
        if name.startswith(_BLOCKS):
            number = name.removeprefix(_BLOCKS).partition(".")[0]
            blocks[number] = blocks.get(number, 0) + _num_bytes(name, weight, dtype, int8)
        else:
            beside += _num_bytes(name, weight, dtype, int8)
    return PartBytes(beside + 2 * max(blocks.values(), default=0))


def _num_bytes(name: str, weight: Tensor, dtype: torch.dtype, int8: bool) -> int:
    return weight_bytes(*weight.shape) if int8 and is_in_8_bits(name) else weight.numel() * dtype.itemsize


def _block_size(t5: T5Config) -> int:
    """Parameters of a block: attention, a gated feed-forward, two norms."""
    inner = t5.num_heads * t5.d_kv
    return 4 * t5.d_model * inner + 3 * t5.d_model * t5.d_ff + 2 * t5.d_model


def _text_working(t5: T5Config, tokens: int, longest: int, dtype: torch.dtype) -> int:
    """Of one block: the hidden layer of its gated feed-forward, queries, keys, values, and positions' biases.

    tokens: that go through it at a time, in captions of at most `longest`.
    """
    inner = t5.num_heads * t5.d_kv
    values = tokens * (3 * t5.d_ff + 4 * inner + 6 * t5.d_model)
    return (values + 2 * t5.num_heads * tokens * min(tokens, longest)) * dtype.itemsize


def _denoise_bytes(
    config: TransformerConfig,
    request: Request,
    pictures: int,
    lengths: tuple[int, int],
    guided: bool,
    together: bool,
    grid: tuple[int, int],
    itemsize: int,
    int8: bool,
) -> int:
    """Of the transformer's passes, or of preparing their captions if that takes more."""

    def conditions(batch: int, length: int, num_steps: int = 0) -> int:
        return condition_bytes(config, batch, length, num_steps, itemsize)

    longest = max(lengths)
    if guided and together:
        kept = conditions(2 * pictures, longest, request.num_steps)
        # Each branch by itself, the shorter one padded, and both together.
        preparing = 4 * conditions(pictures, longest)
    else:
        kept = conditions(pictures, lengths[0], request.num_steps)
        kept += conditions(pictures, lengths[1]) if guided else 0
        # As they come from the blocks, as zeros to be filled, and filled.
        preparing = 3 * conditions(pictures, longest)
    batch = pictures * (2 if guided and together else 1)
    return max(kept + activation_bytes(config, grid, batch, itemsize, plain_projections=not int8), preparing)


def _part_weights(folder: Path, stem: str) -> dict[str, Tensor]:
    """A folder of weights as diffusers and transformers write them → its tensors, mapped. Raises WeightsError."""
    index = folder / f"{stem}.safetensors.index.json"
    whole = folder / f"{stem}.safetensors"
    return read_weights(whole) if whole.is_file() or not index.is_file() else read_sharded_weights(index)


def _loaded(
    weights: Mapping[str, Tensor],
    dtype: torch.dtype,
    device: torch.device,
    *,
    copied: bool = False,
    int8: bool = False,
) -> PartBytes:
    """What weights take in this dtype, on this device; copied: even if they could be used where they are.

    int8: they are the transformer's, most of them in 8 bits.
    """
    loaded = mapped = 0
    for name, weight in weights.items():
        num_bytes = _num_bytes(name, weight, dtype, int8)
        anew = copied or (int8 and is_in_8_bits(name))
        if device.type == "cpu" and weight.dtype == dtype and not anew:
            mapped += num_bytes
        else:
            loaded += num_bytes
    return PartBytes(loaded, mapped)
