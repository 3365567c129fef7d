"""Optimisations of ours that the waterfall switches off, each undone from outside on a model that is loaded.

Legend: B captions, L caption tokens (300, padding included), S timestep rows.

The library has no such switches. What is undone gives the same pictures; the gate sees to that. An optimisation has its
place in `SWITCHES`, in the order in which they are switched on, and a branch in one of the three functions below.

Stays on, since it has no switch here: the package's own T5, tokenizer and sampler in place of transformers' and
diffusers', its modulation, tokens that go through a block's layers in pieces, layers of the autoencoder that write in
place, a decoder that lets go of levels as it leaves them, and weights that are mapped. Not here, since the library does
not have them: position embeddings kept from step to step, the empty prompt's embeddings kept from prompt to prompt, and
queries, keys and values from one merged product.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixart_sigma import products, tiled_attention
from pixart_sigma.allocator import keep_freed_memory
from pixart_sigma.benchmark.inference.scenarios import Work
from pixart_sigma.encoders.autoencoder import Autoencoder
from pixart_sigma.encoders.kl_autoencoder import Upsample
from pixart_sigma.encoders.text import SIGMA_CAPTION_LENGTH, TextEncoder
from pixart_sigma.model import Captions, PixArtTransformer, Timesteps
from pixart_sigma.pipeline.text_to_image import TextToImage

KEPT_MEMORY = "freed memory kept"
REAL_TOKENS = "captions without padding"
CAPTIONS_ONCE = "captions projected once a prompt"
TIMESTEPS_ONCE = "timesteps embedded once a schedule"
TILES = "attention in tiles, in bf16 on a CPU"
ONEDNN = "products by oneDNN, in fp32 on Zen 5"
CHANNELS_LAST = "autoencoder in channels_last"
UPSAMPLING = "upsampling with 16 products a place, not 36"

SWITCHES: dict[str, tuple[Work, ...]] = {
    KEPT_MEMORY: ("step", "picture"),
    REAL_TOKENS: ("step", "picture"),
    CAPTIONS_ONCE: ("step", "picture"),
    TIMESTEPS_ONCE: ("step", "picture"),
    TILES: ("step", "picture"),
    ONEDNN: ("step", "picture"),
    CHANNELS_LAST: ("picture",),
    UPSAMPLING: ("picture",),
}
"""Each with the work that it is part of."""

_ONLY = {TILES: ("cpu", "bfloat16"), ONEDNN: ("cpu", "float32")}
"""Those that do nothing but on a kind of device, in a dtype."""


def switches(work: Work, device_type: str, dtype: str) -> list[str]:
    """Those that are part of some work."""
    here = (device_type, dtype)
    return [name for name, works in SWITCHES.items() if work in works and _ONLY.get(name, here) == here]


def switch_off_in_process(off: Collection[str]) -> None:
    """What a whole process does or does not; such a process is for one row."""
    if KEPT_MEMORY not in off:
        # As `generate` does; any program could, so the other side has it too.
        keep_freed_memory()
    if TILES in off:
        tiled_attention.MULTIPLIES_BF16 = False
    if ONEDNN in off:
        products.IS_FASTER = False


def switch_off(model: TextToImage, off: Collection[str]) -> None:
    """Undo these in a pipeline's parts."""
    switch_off_in_transformer(model.transformer, off)
    if REAL_TOKENS in off:
        _pad_prompts(cast(TextEncoder, model.text_encoder))
    if CHANNELS_LAST in off:
        _decode_in_default_format(model.autoencoder)
    if UPSAMPLING in off:
        _convolve_what_is_repeated(model.autoencoder)


def switch_off_in_transformer(model: PixArtTransformer, off: Collection[str]) -> None:
    """Undo those of them that are the transformer's. Padding comes first: what is repeated then is padded too."""
    if REAL_TOKENS in off:
        pad_captions(model)
    if CAPTIONS_ONCE in off:
        _project_captions_at_every_step(model)
    if TIMESTEPS_ONCE in off:
        _embed_timesteps_at_every_step(model)


def _pad_prompts(encoder: TextEncoder) -> None:
    """Every prompt is encoded with its padding, which is masked."""

    def encode_groups(groups: Sequence[Sequence[str]]) -> list[tuple[Tensor, Tensor]]:
        encoded = []
        for prompts in groups:
            given = encoder.tokenize(prompts)
            lengths = torch.tensor([len(ids) for ids in given], device=encoder.model.device)
            padding = int(encoder.tokenizer.pad_token_id)
            rows = [ids + [padding] * (encoder.caption_length - len(ids)) for ids in given]
            ids = torch.tensor(rows, device=encoder.model.device)
            mask = torch.arange(encoder.caption_length, device=ids.device) < lengths[:, None]
            output = encoder.model(input_ids=ids, attention_mask=mask.long())
            encoded.append((output.last_hidden_state, mask))
        return encoded

    encoder.encode_groups = encode_groups  # type: ignore[method-assign]


def pad_captions(model: PixArtTransformer) -> None:
    """Padding is projected to keys and values in every block, and attended to with a mask."""
    prepare = model.prepare_captions

    def prepare_padded(caption_embeds: Tensor, caption_mask: Tensor) -> Captions:
        missing = max(0, SIGMA_CAPTION_LENGTH - caption_mask.shape[1])
        embeds, mask = F.pad(caption_embeds, (0, 0, 0, missing)), F.pad(caption_mask.bool(), (0, missing))
        prepared = prepare(embeds, torch.ones_like(mask))
        length = mask.shape[1]
        return Captions(prepared.keys[..., :length, :], prepared.values[..., :length, :], mask[:, None, None])

    model.prepare_captions = prepare_padded  # type: ignore[method-assign]


def _project_captions_at_every_step(model: PixArtTransformer) -> None:
    prepare, forward = model.prepare_captions, model.forward
    given: list[tuple[Tensor, Tensor]] = []
    used = False

    def remember(caption_embeds: Tensor, caption_mask: Tensor) -> Captions:
        nonlocal used
        if used:  # the next prompt's
            given.clear()
            used = False
        given.append((caption_embeds, caption_mask))
        return prepare(caption_embeds, caption_mask)

    def forward_anew(
        latents: Tensor, captions: Captions, timesteps: Timesteps, kept_tokens: Tensor | None = None
    ) -> Tensor:
        nonlocal used
        if used:  # at the first step what was prepared is still new
            # Sampling prepares the prompts and then the negative one, puts that first, and repeats it for each picture.
            rows = len(latents) // len(given)
            anew = [prepare(*each) for each in reversed(given)]
            captions = Captions.concat([each.repeat(rows // len(each)) for each in anew])
        used = True
        return forward(latents, captions, timesteps, kept_tokens)

    model.prepare_captions = remember  # type: ignore[method-assign]
    model.forward = forward_anew  # type: ignore[method-assign]


@dataclass(frozen=True)
class _Unprepared:
    """A schedule whose rows are made when they are asked for."""

    prepare: Any
    timesteps: Tensor
    micro_conditions: tuple[Tensor | None, Tensor | None]

    def __len__(self) -> int:
        return len(self.timesteps)

    def __getitem__(self, step: int) -> Timesteps:
        return cast(Timesteps, self.prepare(self.timesteps[step : step + 1], *self.micro_conditions))


def _embed_timesteps_at_every_step(model: PixArtTransformer) -> None:
    prepare = model.prepare_timesteps

    def postpone(
        timesteps: Tensor, image_size: Tensor | None = None, aspect_ratio: Tensor | None = None
    ) -> Timesteps:
        return cast(Timesteps, _Unprepared(prepare, timesteps, (image_size, aspect_ratio)))

    model.prepare_timesteps = postpone  # type: ignore[method-assign]


def _decode_in_default_format(autoencoder: Autoencoder) -> None:
    autoencoder.model.to(memory_format=torch.contiguous_format)
    decode = autoencoder.model.decode

    def decode_contiguous(latents: Tensor) -> Tensor:
        return decode(latents.contiguous(memory_format=torch.contiguous_format))

    autoencoder.model.decode = decode_contiguous  # type: ignore[method-assign]


def _convolve_what_is_repeated(autoencoder: Autoencoder) -> None:
    """Every place is written four times, and the convolution reads the enlarged picture."""
    for layer in autoencoder.model.decoder.modules():
        if isinstance(layer, Upsample):
            layer.forward = _repeated(layer.conv)  # type: ignore[method-assign, assignment]


def _repeated(convolution: nn.Conv2d) -> Callable[[Tensor], Tensor]:
    def forward(states: Tensor) -> Tensor:
        enlarged = F.interpolate(states, scale_factor=2.0, mode="nearest")
        return cast(Tensor, convolution(enlarged))

    return forward
