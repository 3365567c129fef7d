"""What a recipe may say: one frozen pydantic model a table, each refusing keys that it does not know or would ignore.

Knows nothing of files, tensors or data.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from pixart_sigma.errors import InvalidInput
from pixart_sigma.resolution import LATENT_SCALE, PATCH_SIZE, aspect_buckets

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Decay = Annotated[float, Field(ge=0.0, lt=1.0)]
# As in `model.config`, whose package brings torch along: a recipe is checked without it. A test holds them equal.
CompressionOperator = Literal["conv", "average", "nearest", "discard"]
FileSize = Annotated[str, Field(pattern=r"^[1-9]\d*[KMG]B$")]


class Section(BaseModel):
    """A table of a recipe: immutable, and a key that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def _refuse(self, names: set[str], why: str) -> None:
        """Raises ValueError if one of the keys is not its default although it would be ignored."""
        fields = type(self).model_fields
        written = sorted(name for name in names if getattr(self, name) != fields[name].default)
        if written:
            verb = "is" if len(written) == 1 else "are"
            raise ValueError(f"{', '.join(written)} {verb} ignored {why}; remove it")


class RunRecipe(Section):
    """What every kind of run shares; `batch_size` is the global one, whatever the number of processes."""

    steps: PositiveInt
    batch_size: PositiveInt
    accumulate: PositiveInt = 1
    seed: NonNegativeInt = 0
    gradient_clip: PositiveFloat = 1.0
    ema_decay: Decay = 0.999
    precision: Literal["bf16", "fp32"] = "bf16"
    compile: bool = True
    device: str = "auto"
    log_every: PositiveInt = 50
    validate_every: PositiveInt = 500
    checkpoint_every: PositiveInt = 500
    keep_last: PositiveInt = 2
    keep_every: PositiveInt | None = None
    max_skipped_steps: NonNegativeInt = 20
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ("tensorboard",)

    @model_validator(mode="after")
    def _micro_batches_are_equal(self) -> Self:
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of accumulate {self.accumulate}"
            )
        return self


class OptimizerRecipe(Section):
    """`muon`: Muon for the weights of hidden linear layers and convolutions, AdamW for the rest.

    None: the kind's own default.
    """

    kind: Literal["came", "adamw", "adamw-8bit", "muon"] = "adamw"
    learning_rate: PositiveFloat = 1e-3
    matrix_learning_rate: PositiveFloat | None = None
    betas: tuple[Decay, Decay] | tuple[Decay, Decay, Decay] | None = None
    eps: PositiveFloat | tuple[PositiveFloat, PositiveFloat] | None = None
    weight_decay: NonNegativeFloat = 0.0

    @model_validator(mode="after")
    def _keys_fit_the_kind(self) -> Self:
        if self.kind != "muon":
            self._refuse({"matrix_learning_rate"}, f"by {self.kind}")
        wanted = 3 if self.kind == "came" else 2
        if self.betas is not None and len(self.betas) != wanted:
            raise ValueError(f"{self.kind} takes {wanted} betas, not {len(self.betas)}")
        if self.eps is not None and isinstance(self.eps, tuple) != (self.kind == "came"):
            raise ValueError(
                f"eps of {self.kind} is {'a pair of numbers' if self.kind == 'came' else 'one number'}"
            )
        return self


class RateRecipe(Section):
    """The learning rate over the run: a linear warm-up, then constant, or down to `final` of the peak.

    `reference_batch_size`: the peak is learning_rate · sqrt(batch_size / reference_batch_size).
    """

    kind: Literal["constant", "cosine", "linear"] = "constant"
    warmup_steps: NonNegativeInt = 0
    final: Fraction = 0.0
    reference_batch_size: PositiveInt | None = None

    @model_validator(mode="after")
    def _final_needs_a_descent(self) -> Self:
        if self.kind == "constant":
            self._refuse({"final"}, "with a constant rate")
        return self


class ParallelRecipe(Section):
    """How several processes share the work; `auto`: ddp. One process ignores the strategy.

    `hsdp`: sharded within groups of `shard_size` processes, replicated across them.
    """

    strategy: Literal["auto", "ddp", "fsdp", "hsdp"] = "auto"
    shard_size: PositiveInt | None = None
    activation_checkpointing: Literal["none", "selective", "full"] = "none"

    @model_validator(mode="after")
    def _shard_size_is_for_hsdp(self) -> Self:
        if self.strategy != "hsdp":
            self._refuse({"shard_size"}, f"by strategy {self.strategy}")
        elif self.shard_size is None:
            raise ValueError("strategy hsdp needs shard_size, the processes of one machine")
        return self


def check_replicated(parallel: ParallelRecipe) -> None:
    """Raises ValueError where small models, which have no blocks and are validated part by part, are to be sharded."""
    parallel._refuse({"activation_checkpointing"}, "by all but transformers")
    if parallel.strategy in ("fsdp", "hsdp"):
        raise ValueError(
            f"parallel.strategy {parallel.strategy} is for transformers; leave it out, or use ddp"
        )


class PoolRecipe(Section):
    """Pools of drawn scenes under `folder` (relative to the output folder), `num_scenes` of each size."""

    folder: Path = Path("pools")
    num_scenes: PositiveInt
    num_validation: PositiveInt = 256


class AutoencoderModelRecipe(Section):
    """The configuration of diffusers' `AutoencoderKL`; n entries of block_out_channels make a factor 2^(n-1)."""

    block_out_channels: tuple[PositiveInt, ...] = (32, 64, 96, 128)
    layers_per_block: PositiveInt = 1
    latent_channels: PositiveInt = 4
    norm_num_groups: PositiveInt = 8
    mid_block_add_attention: bool = False

    @model_validator(mode="after")
    def _groups_divide(self) -> Self:
        for channels in self.block_out_channels:
            if channels % self.norm_num_groups:
                raise ValueError(
                    f"norm_num_groups {self.norm_num_groups} does not divide {channels} channels"
                )
        return self


class AutoencoderLossRecipe(Section):
    """Weights of the terms of the autoencoder's loss, each a mean over its elements."""

    absolute: NonNegativeFloat = 1.0
    squared: NonNegativeFloat = 2.0
    gradient: NonNegativeFloat = 0.5
    kl: NonNegativeFloat = 1e-5


class TextEncoderModelRecipe(Section):
    """The configuration of a T5 encoder with gated GELU, as in T5 v1.1."""

    vocabulary_size: PositiveInt = 1000
    width: PositiveInt = 192
    num_layers: PositiveInt = 3
    num_heads: PositiveInt = 4
    feed_forward_width: PositiveInt = 384


JudgeLevels = tuple[PositiveInt, PositiveInt, PositiveInt]


class JudgeModelRecipe(Section):
    """The channels and residual blocks of a judge's backbone at 32², 16² and 8²."""

    channels: JudgeLevels
    blocks: JudgeLevels = (1, 1, 1)

    @model_validator(mode="after")
    def _groups_divide(self) -> Self:
        for channels in self.channels:
            if channels % 8:
                raise ValueError(f"channels {channels} are not a multiple of the 8 groups of the norm")
        return self


class CheckerModelRecipe(JudgeModelRecipe):
    """`num_heads`: of the attention from kinds to the map."""

    channels: JudgeLevels = (64, 128, 160)
    blocks: JudgeLevels = (1, 2, 1)
    num_heads: PositiveInt = 4

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.channels[-1] % self.num_heads:
            raise ValueError(f"num_heads {self.num_heads} does not divide {self.channels[-1]} channels")
        return self


class ImageTextModelRecipe(JudgeModelRecipe):
    """`num_pieces` of the tokenizer at most; `text_…`: the text transformer."""

    channels: JudgeLevels = (48, 96, 160)
    num_pieces: PositiveInt = 800
    text_width: PositiveInt = 128
    text_layers: PositiveInt = 2
    text_heads: PositiveInt = 4

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.text_width % self.text_heads:
            raise ValueError(f"text_heads {self.text_heads} does not divide text_width {self.text_width}")
        return self


class DrawnRecipe(Section):
    """Scenes of the drawn world, seeds first_seed … first_seed + num_scenes - 1, drawn at the run's resolution."""

    num_scenes: PositiveInt
    first_seed: NonNegativeInt = 0

    @property
    def seeds(self) -> range:
        """Those of the scenes."""
        return range(self.first_seed, self.first_seed + self.num_scenes)


class SourceRecipe(Section):
    """Pictures with captions; exactly one of the first five says where they are.

    `folder`: pictures with side files (.txt, .json, metadata.jsonl, metadata.csv), or one `caption` for all.
    `pixart`: the official layout, InternImgs and InternData. `parquet`: a Hugging Face dataset. `table`: a Lance
    table. `repeats`: how often an epoch sees each picture.
    """

    folder: Path | None = None
    pixart: Path | None = None
    parquet: Path | None = None
    table: Path | None = None
    drawn: DrawnRecipe | None = None
    caption: str | None = None
    repeats: PositiveInt = 1

    @property
    def kind(self) -> str:
        """The one of the five that was given."""
        return next(name for name in _PLACES if getattr(self, name) is not None)

    @property
    def place(self) -> Path | None:
        """Where it is on disk; the drawn world is nowhere."""
        return self.folder or self.pixart or self.parquet or self.table

    def overlaps(self, other: SourceRecipe) -> bool:
        """Whether both have pictures in common, as far as their names tell."""
        if self.drawn is not None and other.drawn is not None:
            return (
                self.drawn.seeds.start < other.drawn.seeds.stop
                and other.drawn.seeds.start < self.drawn.seeds.stop
            )
        return self.place is not None and self.place == other.place

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        given = [name for name in _PLACES if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a source is exactly one of {', '.join(_PLACES)}; given: {', '.join(given) or 'none'}"
            )
        if self.folder is None:
            self._refuse({"caption"}, f"by a source that is a {given[0]}")
        return self


_PLACES = ("folder", "pixart", "parquet", "table", "drawn")


class ClassImagesRecipe(Section):
    """DreamBooth's prior: `num` pictures of `prompt`, made by the model that training starts from.

    Each epoch sees each of them once; their loss has `weight`.
    """

    prompt: str
    num: PositiveInt = 100
    weight: PositiveFloat = 1.0
    num_steps: PositiveInt = 20
    guidance_scale: PositiveFloat = 4.5


class DataRecipe(Section):
    """Which pictures, in which shapes, and what is computed before training begins.

    `buckets`: `aspect`, all of the released buckets of the resolution, or `square`. `latents`, `embeddings`: `cached`
    as columns of the table, or computed `online` at every step. Tables made on the way go to `folder`, relative to
    the output folder. The last, partial batch of a bucket is dropped, or filled up from the bucket's start (`wrap`).
    """

    sources: tuple[SourceRecipe, ...] = Field(min_length=1)
    validation: SourceRecipe | None = None
    class_images: ClassImagesRecipe | None = None
    folder: Path = Path("tables")
    buckets: Literal["aspect", "square"] = "aspect"
    max_aspect: PositiveFloat = 4.5
    latents: Literal["cached", "online"] = "cached"
    embeddings: Literal["cached", "online"] = "cached"
    partial_batches: Literal["drop", "wrap"] = "drop"
    max_corrupt: Fraction = 0.01
    workers: PositiveInt = 4

    @model_validator(mode="after")
    def _keys_fit(self) -> Self:
        if self.latents == "cached":
            self._refuse(
                {"workers"}, "with cached latents; it is for pictures that are decoded at every step"
            )
        if self.validation is not None:
            self.validation._refuse({"repeats"}, "by validation")
            if any(self.validation.overlaps(source) for source in self.sources):
                raise ValueError("data.validation has pictures that are trained on; name others")
        return self


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
            self._refuse({"init", "norm"}, f"by operator {self.operator}, which has no weights")
        return self


class StartRecipe(Section):
    """The model that training starts from and what is changed about it; what is left out stays as it is.

    `model`: as for `generate --model`; parts that it lacks come from `components`. `vae`: another model, whose
    autoencoder is taken. `resolution` interpolates positions unless `interpolation_scale` is given. `caption_length`:
    the model's own where it is left out (Σ: 300, α: 120).
    """

    model: Path
    components: Path | None = None
    vae: Path | None = None
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
            self._refuse({"vae_scaling"}, "without another vae")
        if self.resolution is not None and self.resolution % (LATENT_SCALE * PATCH_SIZE):
            raise ValueError(f"resolution {self.resolution} is not a multiple of {LATENT_SCALE * PATCH_SIZE}")
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
            self._refuse({"timestep_mean", "timestep_std"}, "with uniform timesteps")
        if self.min_snr_gamma is not None and self.x0_below is not None:
            raise ValueError("min_snr_gamma and x0_below exclude each other; remove one")
        return self


class CaptionRecipe(Section):
    """`mix`: a weight for each source of captions, such as {dense = 0.6, short = 0.4}; empty: all alike.

    A record without a caption of some source leaves that one out. `dropout` puts the empty caption in a caption's
    place, read under its `own` mask (as diffusers) or under that of the `caption` it replaces (the official code).
    """

    mix: dict[str, PositiveFloat] = {}
    dropout: Fraction = 0.1
    null_mask: Literal["own", "caption"] = "own"

    @model_validator(mode="after")
    def _null_needs_dropout(self) -> Self:
        if not self.dropout:
            self._refuse({"null_mask"}, "without dropout")
        return self


class SamplesRecipe(Section):
    """The validation grid: fixed prompts, prompt i with seed i; none: the captions of validation records."""

    prompts: tuple[str, ...] = ()
    num_steps: PositiveInt = 20
    guidance_scale: PositiveFloat = 4.5


class ExportRecipe(Section):
    """What a full fine-tune or an adapter is written as at the end."""

    weights: Literal["average", "last"] = "average"
    dtype: Literal["bf16", "fp32"] = "bf16"
    max_shard_size: FileSize = "10GB"


class _Training(Section):
    """What every kind of recipe says."""

    kind: str
    run: RunRecipe
    optimizer: OptimizerRecipe = OptimizerRecipe()
    rate: RateRecipe = RateRecipe()
    parallel: ParallelRecipe = ParallelRecipe()


class _SmallTraining(_Training):
    """Of a model that every process holds whole."""

    @model_validator(mode="after")
    def _not_sharded(self) -> Self:
        check_replicated(self.parallel)
        return self


class AutoencoderRecipe(_SmallTraining):
    """Square crops of `crop_size` px from scenes drawn at each of `image_sizes`."""

    kind: Literal["autoencoder"]
    pool: PoolRecipe
    model: AutoencoderModelRecipe = AutoencoderModelRecipe()
    loss: AutoencoderLossRecipe = AutoencoderLossRecipe()
    image_sizes: tuple[PositiveInt, ...] = (128, 256)
    crop_size: PositiveInt = 64

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        factor = 2 ** (len(self.model.block_out_channels) - 1)
        if self.crop_size % factor or self.crop_size > min(self.image_sizes):
            raise ValueError(
                f"crop_size {self.crop_size} must be a multiple of {factor} and at most {min(self.image_sizes)}"
            )
        return self


class TextEncoderRecipe(_SmallTraining):
    """Captions of seeds 0 … num_scenes - 1; `masked` is the share of pieces to be filled in."""

    kind: Literal["text-encoder"]
    model: TextEncoderModelRecipe = TextEncoderModelRecipe()
    num_scenes: PositiveInt = 50_000
    num_validation: PositiveInt = 512
    masked: Fraction = 0.25


class CheckerRecipe(_SmallTraining):
    """The judge that reads pictures. Scenes of its own seeds, with all pairs, drawn at each of `image_sizes`."""

    kind: Literal["checker"]
    pool: PoolRecipe
    model: CheckerModelRecipe = CheckerModelRecipe()
    image_sizes: tuple[PositiveInt, ...] = Field((128, 256), min_length=1)


class ImageTextRecipe(_SmallTraining):
    """The judge of pictures with texts, which contrasts the pictures of a part of a batch. Scenes as a checker's."""

    kind: Literal["image-text"]
    pool: PoolRecipe
    model: ImageTextModelRecipe = ImageTextModelRecipe()
    image_sizes: tuple[PositiveInt, ...] = Field((128, 256), min_length=1)


class TransformerRecipe(_Training):
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
        if self.resolution is not None:
            check_buckets(self.resolution, self.data.buckets)
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
        self.export._refuse({"max_shard_size", "dtype"}, "by [lora], which writes one small file in fp32")


def check_buckets(resolution: int, buckets: str) -> None:
    """Raises ValueError if a resolution has no aspect-ratio buckets although they are asked for."""
    if buckets == "aspect":
        try:
            aspect_buckets(resolution)
        except InvalidInput as error:
            rule = str(error).partition(";")[0]
            raise ValueError(f'{rule}; choose one of those, or data.buckets = "square"') from error


Recipe = AutoencoderRecipe | TextEncoderRecipe | CheckerRecipe | ImageTextRecipe | TransformerRecipe


def check_groups(parallel: ParallelRecipe, world: int) -> None:
    """Raises ValueError if groups of shard_size do not divide the processes."""
    if parallel.shard_size is not None and world > 1 and world % parallel.shard_size:
        raise ValueError(
            f"parallel.shard_size {parallel.shard_size} does not divide the {world} processes; use the number of one "
            "machine's"
        )


def microbatch(run: RunRecipe, world: int) -> int:
    """Samples of one process's micro-batch. Raises ValueError if the batch cannot be dealt evenly."""
    parts = world * run.accumulate
    if run.batch_size % parts:
        nearest = max(1, math.floor(run.batch_size / parts + 0.5)) * parts
        raise ValueError(
            f"run.batch_size {run.batch_size} is not a multiple of {world} processes x {run.accumulate} micro-batches; "
            f"nearest: {nearest}"
        )
    return run.batch_size // parts
