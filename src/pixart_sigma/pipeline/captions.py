"""Prompts → what the transformer reads of them, the null branch of guidance included.

Legend: B prompts, L caption tokens, K tokens of the null branch, C channels of the text encoder.
Knows nothing of the transformer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from pixart_sigma.errors import InvalidInput, WeightsError
from pixart_sigma.pipeline.profiles import Profile


class PromptEncoder(Protocol):
    """What is asked of a text encoder, whether it is one or knows what one made; see `TextEncoder`."""

    @property
    def caption_length(self) -> int: ...

    @property
    def width(self) -> int: ...

    @property
    def model(self) -> Any: ...

    @property
    def weight_bytes(self) -> int: ...

    def to(self, device: torch.device | str) -> Self: ...

    def with_caption_length(self, caption_length: int) -> PromptEncoder: ...

    def encode_groups(self, groups: Sequence[Sequence[str]]) -> list[tuple[Tensor, Tensor]]: ...

    def null_embedding(self) -> Tensor: ...


@dataclass(frozen=True)
class EncodedPrompts:
    """What `TextToImage.encode` makes and `denoise` takes; may be built by hand, saved and loaded.

    embeds (B, L, C), mask (B, L) bool, True on real tokens. negative_embeds (1 or B, K, C) and negative_mask (1 or
    B, K), or None without guidance: the null branch, one for all or one for each. Raises InvalidInput for shapes
    that do not fit.
    """

    embeds: Tensor
    mask: Tensor
    negative_embeds: Tensor | None = None
    negative_mask: Tensor | None = None

    def __post_init__(self) -> None:
        _check_shapes("", self.embeds, self.mask)
        if self.negative_embeds is None or self.negative_mask is None:
            if self.negative_embeds is not self.negative_mask:
                raise InvalidInput("negative_embeds and negative_mask go together; give both or neither")
            return
        _check_shapes("negative_", self.negative_embeds, self.negative_mask)
        if len(self.negative_embeds) not in (1, len(self)):
            raise InvalidInput(
                f"{len(self.negative_embeds)} negative_embeds for {len(self)} embeds; give one, or one for each"
            )

    def __len__(self) -> int:
        return int(self.embeds.shape[0])

    def of(self, index: int) -> EncodedPrompts:
        """One prompt of them, with the null branch that it has."""
        alone = slice(index, index + 1)
        if self.negative_embeds is None or self.negative_mask is None:
            return EncodedPrompts(self.embeds[alone], self.mask[alone])
        null = alone if len(self.negative_embeds) > 1 else slice(None)
        return EncodedPrompts(
            self.embeds[alone], self.mask[alone], self.negative_embeds[null], self.negative_mask[null]
        )

    def to(self, device: torch.device | str) -> EncodedPrompts:
        """The same on a device."""
        moved = {name: None if value is None else value.to(device) for name, value in vars(self).items()}
        return EncodedPrompts(**moved)


def encode_prompts(
    text_encoder: PromptEncoder,
    prompts: Sequence[str],
    negative_prompt: str,
    guided: bool,
    profile: Profile,
    null_caption: Tensor | None,
) -> EncodedPrompts:
    """Prompts in a profile's convention → their embeddings, with the null branch if guided.

    null_caption (rows, C): what a checkpoint carries in the place of the text encoder's output for the empty caption,
    where the profile uses that. Raises InvalidInput for a negative prompt that the profile has no place for,
    WeightsError for a null_caption that has fewer rows than a caption has tokens.
    """
    profile.check_negative_prompt(negative_prompt)
    groups = asked_groups(prompts, negative_prompt, guided, profile)
    (embeds, mask), *null_branch = text_encoder.encode_groups(groups)
    if not guided:
        return EncodedPrompts(embeds, mask)
    if null_branch:
        return EncodedPrompts(embeds, mask, *null_branch[0])
    null = text_encoder.null_embedding() if null_caption is None else null_caption
    if null.shape[0] < embeds.shape[1] or null.shape[1] != embeds.shape[2]:
        raise WeightsError(
            f"the null caption {tuple(null.shape)} of the checkpoint does not fit captions "
            f"{tuple(embeds.shape[1:])}; convert it again, with its own text encoder"
        )
    negative = null[: embeds.shape[1]].to(embeds.device, embeds.dtype).expand_as(embeds)
    return EncodedPrompts(embeds, mask, negative, mask)


def asked_groups(
    prompts: Sequence[str], negative_prompt: str, guided: bool, profile: Profile
) -> list[list[str]]:
    """What `encode_prompts` has encoded, as the text encoder sees it: the prompts, and the null branch if it is one."""
    groups = [[profile.caption(prompt) for prompt in prompts]]
    if guided and profile.null_mask == "own":
        groups.append([profile.caption(negative_prompt)])
    return groups


def asks_for_null(guided: bool, profile: Profile, null_caption: Tensor | None) -> bool:
    """Whether `encode_prompts` asks for the text encoder's null embedding."""
    return guided and profile.null_mask != "own" and null_caption is None


def _check_shapes(prefix: str, embeds: Tensor, mask: Tensor) -> None:
    if embeds.ndim != 3 or mask.shape != embeds.shape[:2]:
        raise InvalidInput(
            f"{prefix}embeds {tuple(embeds.shape)} and {prefix}mask {tuple(mask.shape)} do not fit; "
            "they must be (B, L, C) and (B, L)"
        )
