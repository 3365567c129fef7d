"""The tables on what a transformer begins as, and what is changed about it before it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from pixart_sigma.training.recipe.section import Section, check_resolution

# As in `model.config`, whose package brings torch along: a recipe is checked without it. A test holds them equal.
CompressionOperator = Literal["conv", "average", "nearest", "discard"]


class KVCompressionRecipe(Section):
    """Key/value compression of the transformer (paper section 3.2), as in `model.KVCompression`."""

    window: tuple[PositiveInt, PositiveInt]
    blocks: Literal["shallow", "middle", "deep", "all"] | tuple[NonNegativeInt, ...] = "deep"
    operator: CompressionOperator = "conv"
    init: Literal["average", "random"] = "average"
    norm: bool | None = None
    from_tokens: NonNegativeInt = 0

    @model_validator(mode="after")
    def _init_is_for_conv(self) -> Self:
        if self.operator != "conv":
            self.refuse_ignored({"init", "norm"}, f"by operator {self.operator}, which has no weights")
        return self


class StartRecipe(Section):
    """The model that training starts from and what is changed about it; what is left out stays as it is.

    `model`: as for `generate --model`; parts that it lacks come from `components`. `vae`, `text_encoder`: other models,
    whose autoencoder, and whose text encoder and tokenizer, are taken. `resolution` interpolates positions unless
    `interpolation_scale` is given. `caption_length`: the model's own where it is left out (Σ: 300, α: 120).
    """

    model: Path
    components: Path | None = None
    vae: Path | None = None
    text_encoder: Path | None = None
    vae_scaling: Literal["estimate", "config"] = "estimate"
    resolution: PositiveInt | None = None
    interpolation_scale: PositiveFloat | None = None
    kv_compression: KVCompressionRecipe | None = None
    caption_length: PositiveInt | None = None
    qk_norm: bool | None = None
    micro_conditioning: bool | None = None

    @model_validator(mode="after")
    def _keys_fit(self) -> Self:
        if self.vae is None:
            self.refuse_ignored({"vae_scaling"}, "without another vae")
        check_resolution(self.resolution)
        return self


class ScratchRecipe(Section):
    """A fresh transformer; caption_channels and in_channels follow from the folders of its encoders."""

    autoencoder: Path
    text_encoder: Path
    num_layers: PositiveInt = 28
    num_attention_heads: PositiveInt = 16
    attention_head_dim: PositiveInt = 72
    sample_size: PositiveInt = 32
    interpolation_scale: PositiveFloat = 0.5
    learned_variance: bool = True
    qk_norm: bool = False
    kv_compression: KVCompressionRecipe | None = None
    caption_length: PositiveInt = 300
