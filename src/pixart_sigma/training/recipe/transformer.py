"""The transformer's recipe, and its own tables: adapters, objective, samples, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from pixart_sigma.resolution import LATENT_SCALE
from pixart_sigma.training.recipe.data import CaptionRecipe, DataRecipe, check_buckets
from pixart_sigma.training.recipe.process import Training
from pixart_sigma.training.recipe.section import Section
from pixart_sigma.training.recipe.start import ScratchRecipe, StartRecipe

FileSize = Annotated[str, Field(pattern=r"^[1-9]\d*[KMG]B$")]


DEFAULT_TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")


class LoraRecipe(Section):
    """Adapters instead of a full fine-tune; `base` says how the frozen weights are stored. alpha None: the rank."""

    rank: PositiveInt = 16
    alpha: PositiveFloat | None = None
    dora: bool = False
    targets: tuple[str, ...] = Field(DEFAULT_TARGETS, min_length=1)
    base: Literal["fp32", "bf16", "int8", "nf4"] = "bf16"


class ObjectiveRecipe(Section):
    """What the model predicts, how its error is weighted, and at which timesteps it is asked.

    `x0_below`: below this timestep the error is that of the picture, not of the noise (official: 250).
    """

    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon"
    timesteps: Literal["uniform", "logit-normal"] = "uniform"
    timestep_mean: float = 0.0
    timestep_std: PositiveFloat = 1.0
    min_snr_gamma: PositiveFloat | None = None
    x0_below: Annotated[int, Field(ge=1, le=1000)] | None = None

    @model_validator(mode="after")
    def _keys_fit(self) -> Self:
        if self.timesteps == "uniform":
            self.refuse_ignored({"timestep_mean", "timestep_std"}, "with uniform timesteps")
        if self.min_snr_gamma is not None and self.x0_below is not None:
            raise ValueError("min_snr_gamma and x0_below exclude each other; remove one")
        return self


class SamplesRecipe(Section):
    """The validation grid: fixed prompts, prompt i with seed i; none: the captions of validation records."""

    prompts: tuple[str, ...] = ()
    num_steps: PositiveInt = 20
    guidance_scale: PositiveFloat = 4.5


class BlendRecipe(Section):
    """Another model's share in the exported transformer: share · theirs + (1 - share) · this run's weights.

    Brings back what a fine-tune forgot. Tensors that the other lacks are this run's alone. Source: Wortsman et al.,
    Robust fine-tuning of zero-shot models, 2022, equation 1.
    """

    model: Path
    share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5


class ExportRecipe(Section):
    """What a full fine-tune or an adapter is written as at the end. Validation never sees the `blend`."""

    weights: Literal["average", "last"] = "average"
    blend: BlendRecipe | None = None
    dtype: Literal["bf16", "fp32"] = "bf16"
    max_shard_size: FileSize = "10GB"


class TransformerRecipe(Training):
    """The transformer: from `start`, with its surgery, or from `scratch`; all of it, or a `lora`."""

    kind: Literal["transformer"]
    data: DataRecipe
    start: StartRecipe | None = None
    scratch: ScratchRecipe | None = None
    lora: LoraRecipe | None = None
    train_text_encoder: bool = False
    objective: ObjectiveRecipe = ObjectiveRecipe()
    captions: CaptionRecipe = CaptionRecipe()
    samples: SamplesRecipe = SamplesRecipe()
    export: ExportRecipe = ExportRecipe()

    @property
    def resolution(self) -> int | None:
        """The side in pixels of the square that training is based on; None: that of the starting model."""
        if self.scratch is not None:
            return self.scratch.sample_size * LATENT_SCALE
        return self.start.resolution if self.start is not None else None

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if (self.start is None) == (self.scratch is None):
            raise ValueError(
                "a transformer begins with either [start] or [scratch]; write exactly one of them"
            )
        if not self.train_text_encoder:
            self.optimizer.refuse_ignored({"position_learning_rate"}, "unless train_text_encoder is true")
        if self.train_text_encoder and self.data.embeddings == "cached":
            raise ValueError(
                "data.embeddings is cached, but the text encoder changes while it is trained; set it to online"
            )
        if self.data.class_images is not None and self.start is None:
            raise ValueError("data.class_images are made by the starting model, but [start] is missing")
        if self.lora is not None:
            self._lora_fits(self.lora)
        if self.optimizer.kind == "adamw-8bit" and self.parallel.strategy in ("fsdp", "hsdp"):
            raise ValueError(
                "adamw-8bit cannot be sharded; set parallel.strategy to ddp, or optimizer.kind to adamw"
            )
        if self.captions.null_mask == "caption" and self.train_text_encoder:
            raise ValueError(
                'captions.null_mask "caption" needs the fixed outputs of a frozen text encoder; leave it out, or set '
                "train_text_encoder to false"
            )
        sources = [*self.data.sources, *([self.data.validation] if self.data.validation is not None else [])]
        for resolution in (self.resolution, *(source.resolution for source in sources)):
            if resolution is not None:
                check_buckets(resolution, self.data.buckets)
        return self

    def _lora_fits(self, lora: LoraRecipe) -> None:
        if self.start is None:
            raise ValueError("[lora] adapts a starting model, but [start] is missing")
        if self.train_text_encoder:
            raise ValueError(
                "train_text_encoder is ignored by [lora], which adapts the transformer; remove it"
            )
        carried = ["model", "components", "resolution"]
        compression = self.start.kv_compression
        if compression is not None and compression.operator == "average":
            carried.append("kv_compression")  # which `generate --kv-compression` can give any model
        fields = type(self.start).model_fields
        refused = sorted(
            name
            for name in fields
            if name not in carried and getattr(self.start, name) != fields[name].default
        )
        if refused:
            raise ValueError(
                f"start.{refused[0]} changes more than adapters can learn or carry; remove it, or remove [lora]"
            )
        self.export.refuse_ignored(
            {"blend", "max_shard_size", "dtype"}, "by [lora], which writes one small file of adapters in fp32"
        )
