"""A pipeline's parts: loaded, shared with another pipeline, or left out; and whether they fit one another.

Knows nothing of what the pipeline does with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import torch
from torch import Tensor

from pixart_sigma.encoders.autoencoder import Autoencoder
from pixart_sigma.encoders.kl_autoencoder_files import empty_autoencoder
from pixart_sigma.encoders.text import SIGMA_CAPTION_LENGTH, TextEncoder
from pixart_sigma.encoders.text_holds import TextHold, check_text_hold, is_exact
from pixart_sigma.errors import InvalidInput, WeightsError
from pixart_sigma.model.compilation import compile_blocks
from pixart_sigma.model.int8 import check_int8_device, quantise_linears
from pixart_sigma.model.transformer import PixArtTransformer
from pixart_sigma.pipeline.captions import PromptEncoder
from pixart_sigma.pipeline.compiler import check_compiler
from pixart_sigma.pipeline.device import resolve_device, resolve_dtype
from pixart_sigma.pipeline.prompt_cache import CachedTextEncoder
from pixart_sigma.pipeline.request import Lora
from pixart_sigma.pipeline.samplers import kinds_of
from pixart_sigma.resolution import LATENT_SCALE, PATCH_SIZE
from pixart_sigma.weights.catalogue import Release, SamplingKind
from pixart_sigma.weights.checkpoint import read_checkpoint
from pixart_sigma.weights.digests import text_encoder_digest
from pixart_sigma.weights.folder import (
    PipelineFolders,
    caption_length,
    find_pipeline,
    read_json,
    text_encoder_width,
)
from pixart_sigma.weights.lora import apply_loras, load_lora
from pixart_sigma.weights.transformer import build


class Load(Enum):
    """What to do with a part that was not given."""

    LOAD = "load"


LOAD: Final = Load.LOAD


@dataclass(frozen=True)
class Parts:
    """The models, and what is known of them; None is a part that was left out. Raises WeightsError for a misfit.

    scheduler_config: scheduler_config.json's content. name: the model's. release: what the catalogue says of it.
    caption_length: the longest caption, in tokens, that the transformer was trained with. null_caption (rows,
    channels): what the checkpoint carries in the place of the text encoder's output for the empty caption.
    adapted: LoRAs were merged into the transformer. borrowed_autoencoder: it is from another place than the
    transformer.
    """

    text_encoder: PromptEncoder | None
    transformer: PixArtTransformer | None
    autoencoder: Autoencoder | None
    scheduler_config: Mapping[str, Any] = field(default_factory=dict)
    name: str = "of these parts"
    release: Release | None = None
    caption_length: int = SIGMA_CAPTION_LENGTH
    null_caption: Tensor | None = None
    adapted: bool = False
    borrowed_autoencoder: bool = False

    def __post_init__(self) -> None:
        _check_fit(self.text_encoder, self.transformer, self.autoencoder)

    def to(self, device: torch.device | str) -> None:
        """Moves what is there."""
        for part in (self.text_encoder, self.transformer, self.autoencoder):
            if part is not None:
                part.to(device)

    @property
    def kinds(self) -> tuple[SamplingKind, ...]:
        """See `kinds_of`."""
        return kinds_of(self.release, self.scheduler_config, adapted=self.adapted)


def load_parts(
    model: str | Path | PipelineFolders,
    components: str | Path | None,
    revision: str | None,
    dtype: str,
    device: str,
    loras: Sequence[Lora],
    text_encoder: PromptEncoder | Load | None,
    transformer: PixArtTransformer | Load | None,
    autoencoder: Autoencoder | Load | None,
    *,
    text_encoder_held: TextHold = "resident",
    prompt_cache: Path | None = None,
    int8: bool = False,
    compiled: bool = False,
) -> Parts:
    """See `TextToImage.from_pretrained`. Only what is loaded is looked for."""
    chosen_device = resolve_device(device)
    chosen_dtype = resolve_dtype(dtype, chosen_device)
    if loras and transformer is not LOAD:
        raise InvalidInput(
            "loras are merged into a transformer that is loaded, not into one that is shared or left out"
        )
    for name, asked in {"int8": int8, "compiled": compiled}.items():
        if asked and transformer is not LOAD:
            raise InvalidInput(
                f"{name} is for a transformer that is loaded, not for one that is shared or left out; leave {name} out "
                "too"
            )
    if int8:
        check_int8_device(chosen_device)
    if compiled:
        check_compiler()
    check_text_hold(text_encoder_held)
    if text_encoder is not LOAD and (text_encoder_held != "resident" or prompt_cache is not None):
        raise InvalidInput(
            "text_encoder_held and prompt_cache are for a text encoder that is loaded, not for one that is shared or "
            "left out; leave them out too"
        )
    wanted = [
        *(("transformer",) if transformer is LOAD else ()),
        *(("text_encoder", "tokenizer") if text_encoder is LOAD else ()),
        *(("vae",) if autoencoder is LOAD else ()),
        *(("scheduler",) if transformer is not None else ()),
    ]
    if isinstance(model, PipelineFolders):
        folders = model
        if components is not None or revision is not None:
            raise InvalidInput(
                "components and revision are find_pipeline's, whose result was given; give them there"
            )
    else:
        folders = find_pipeline(model, components, revision, wanted)

    null_caption: Tensor | None = None
    if isinstance(transformer, Load):
        transformer, null_caption = _load_transformer(folders.transformer, chosen_dtype, loras, int8)
        transformer.to(chosen_device)
        if compiled:
            compile_blocks(transformer.transformer_blocks)
    elif text_encoder is not None and "transformer" in folders.parts:
        # Prompts are encoded as if the transformer were there.
        null_caption = read_checkpoint(folders.transformer).null_caption
    length = prompt_length(folders, null_caption)
    if isinstance(text_encoder, Load):
        which = (folders, chosen_dtype, length, chosen_device, text_encoder_held)
        # With a cache nothing is loaded yet.
        text_encoder = (
            _load_text_encoder(*which) if prompt_cache is None else open_prompt_cache(*which, prompt_cache)
        )
    elif text_encoder is not None and text_encoder.caption_length != length:
        text_encoder = text_encoder.with_caption_length(length)
    borrowed = not isinstance(autoencoder, Load)
    if isinstance(autoencoder, Load):
        borrowed = folders["vae"] != folders.folders.get("transformer")
        autoencoder = Autoencoder.from_pretrained(folders["vae"], chosen_dtype).to(chosen_device)
    scheduler_config: dict[str, Any] = {}
    if transformer is not None:
        scheduler_config = read_json(folders["scheduler"] / "scheduler" / "scheduler_config.json")
    return Parts(
        text_encoder,
        transformer,
        autoencoder,
        scheduler_config,
        name=folders.name,
        release=folders.release,
        caption_length=length,
        null_caption=null_caption,
        adapted=bool(loras),
        borrowed_autoencoder=borrowed,
    )


def outline_parts(folders: PipelineFolders, *, adapted: bool = False) -> Parts:
    """All parts without their weights, to see whether they belong together before any is loaded.

    adapted: LoRAs will be merged. Raises WeightsError for a misfit, and for files that are missing or broken.
    """
    checkpoint = read_checkpoint(folders.transformer)
    with torch.device("meta"):
        transformer = PixArtTransformer(checkpoint.config)
    vae = folders["vae"] / "vae" / "config.json"
    autoencoder = Autoencoder(empty_autoencoder(read_json(vae), vae))
    text_encoder: Any = SimpleNamespace(width=text_encoder_width(folders))
    return Parts(
        text_encoder,
        transformer,
        autoencoder,
        read_json(folders["scheduler"] / "scheduler" / "scheduler_config.json"),
        name=folders.name,
        release=folders.release,
        caption_length=prompt_length(folders, checkpoint.null_caption),
        null_caption=checkpoint.null_caption,
        adapted=adapted,
        borrowed_autoencoder=folders["vae"] != folders.folders.get("transformer"),
    )


def prompt_length(folders: PipelineFolders, null_caption: Tensor | None) -> int:
    """Tokens of the longest caption. What a checkpoint says by its null_caption goes before what its folder says,
    which may be its components'.
    """
    if null_caption is not None and folders.release is None:
        return len(null_caption)
    return caption_length(folders)


def _load_text_encoder(
    folders: PipelineFolders,
    dtype: torch.dtype,
    length: int,
    device: torch.device,
    held: TextHold,
) -> TextEncoder:
    return TextEncoder.from_pretrained(
        folders["text_encoder"],
        dtype,
        tokenizer_folder=folders["tokenizer"],
        caption_length=length,
        held=held,
        device=device,
    )


def open_prompt_cache(
    folders: PipelineFolders,
    dtype: torch.dtype,
    length: int,
    device: torch.device,
    held: TextHold,
    prompt_cache: Path,
) -> CachedTextEncoder:
    """A model's prompts on disk, with its text encoder behind them, which is loaded for what is not there.

    length: of the longest caption, see `prompt_length`. The first time the text encoder's files are read through.
    """
    width = text_encoder_width(folders)  # before all files are read
    precision = str(dtype).removeprefix("torch.")
    return CachedTextEncoder(
        prompt_cache,
        # `find_pipeline` never takes a tokenizer from elsewhere than its text encoder.
        text_encoder_digest(folders["text_encoder"], prompt_cache),
        precision if is_exact(held) else f"{precision} {held}",
        length,
        width,
        lambda: _load_text_encoder(folders, dtype, length, device, held),
        device,
    )


def _load_transformer(
    path: Path, dtype: torch.dtype, loras: Sequence[Lora], int8: bool
) -> tuple[PixArtTransformer, Tensor | None]:
    """→ (the model in eval mode on the CPU, its checkpoint's null caption)."""
    adapters = [(load_lora(lora.path), lora.strength) for lora in loras]
    checkpoint = read_checkpoint(path)
    model = build(checkpoint.config, checkpoint.state_dict, checkpoint.source)
    if adapters:
        # In fp32: in bf16 most of a small change would be rounded away before it adds to another.
        apply_loras(model.to(torch.float32), adapters)
    if int8:  # of what is in the files, before the cast rounds it
        quantise_linears(model.transformer_blocks)
    model.to(dtype).eval()
    return model, checkpoint.null_caption


def _check_fit(
    text_encoder: PromptEncoder | None, transformer: PixArtTransformer | None, autoencoder: Autoencoder | None
) -> None:
    checks: list[tuple[str, int, int]] = []
    config = transformer.config if transformer is not None else None
    if config is not None:
        checks.append(("the transformer's patch size", config.patch_size, PATCH_SIZE))
    if text_encoder is not None and config is not None:
        checks.append(("the text encoder's width", text_encoder.width, config.caption_channels))
    if autoencoder is not None:
        checks.append(("the autoencoder's pixels per latent", autoencoder.latent_scale, LATENT_SCALE))
        if config is not None:
            channels = autoencoder.model.config.latent_channels
            checks.append(("the autoencoder's latent channels", channels, config.in_channels))
    for name, found, needed in checks:
        if found != needed:
            raise WeightsError(
                f"{name} is {found}, the pipeline needs {needed}; combine parts that belong together"
            )
