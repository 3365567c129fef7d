"""Typed recipes: a TOML file says everything about a training run; the resolved one can be run again.

A recipe is found by the name of a packaged file or by its path, overridden with `a.b=c` in TOML syntax, and
checked before anything is computed. This module knows nothing of tensors, data or files other than TOML.
"""

from __future__ import annotations

import json
import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from pixart_sigma.errors import RecipeError

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Decay = Annotated[float, Field(ge=0.0, lt=1.0)]


class Section(BaseModel):
    """A table of a recipe: immutable, and a key that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class OptimizerRecipe(Section):
    """`adamw`: fused AdamW for all. `muon`: Muon for the 2-D weights of hidden layers, AdamW for the rest."""

    kind: Literal["adamw", "muon"] = "adamw"
    learning_rate: PositiveFloat = 1e-3
    matrix_learning_rate: PositiveFloat | None = None
    betas: tuple[Decay, Decay] = (0.9, 0.99)
    weight_decay: NonNegativeFloat = 0.0

    @model_validator(mode="after")
    def _matrix_rate_needs_muon(self) -> Self:
        if self.matrix_learning_rate is not None and self.kind != "muon":
            raise ValueError("matrix_learning_rate would be ignored by adamw; remove it or set kind to muon")
        return self


class RunRecipe(Section):
    """What every kind of run shares. The rate warms up linearly, then follows a cosine to `final_rate`."""

    steps: PositiveInt
    batch_size: PositiveInt
    seed: NonNegativeInt = 0
    warmup_steps: NonNegativeInt = 100
    final_rate: Fraction = 0.0
    gradient_clip: PositiveFloat = 1.0
    ema_decay: Decay = 0.999
    precision: Literal["bf16", "fp32"] = "bf16"
    compile: bool = True
    device: str = "auto"
    log_every: PositiveInt = 50
    validate_every: PositiveInt = 500
    checkpoint_every: PositiveInt = 500
    keep_checkpoints: PositiveInt = 2


class PoolRecipe(Section):
    """A pool of drawn scenes under `folder` (relative to the output folder): seeds 0 … num_scenes - 1."""

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


class AutoencoderRecipe(Section):
    """Square crops of `crop_size` px from scenes drawn at each of `image_sizes`."""

    kind: Literal["autoencoder"]
    run: RunRecipe
    optimizer: OptimizerRecipe = OptimizerRecipe()
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


class TextEncoderModelRecipe(Section):
    """The configuration of a T5 encoder with gated GELU, as in T5 v1.1."""

    vocabulary_size: PositiveInt = 1000
    width: PositiveInt = 192
    num_layers: PositiveInt = 3
    num_heads: PositiveInt = 4
    feed_forward_width: PositiveInt = 384


class TextEncoderRecipe(Section):
    """Captions of seeds 0 … num_scenes - 1; `masked` is the share of pieces to be filled in."""

    kind: Literal["text-encoder"]
    run: RunRecipe
    optimizer: OptimizerRecipe = OptimizerRecipe()
    model: TextEncoderModelRecipe = TextEncoderModelRecipe()
    num_scenes: PositiveInt = 50_000
    num_validation: PositiveInt = 512
    masked: Fraction = 0.25


class TransformerModelRecipe(Section):
    """The configuration of `PixArtTransformer`; caption_channels follow from the text encoder."""

    num_layers: PositiveInt = 8
    num_attention_heads: PositiveInt = 8
    attention_head_dim: PositiveInt = 32
    out_channels: PositiveInt = 8
    patch_size: PositiveInt = 2
    sample_size: PositiveInt = 16
    interpolation_scale: PositiveFloat = 0.25
    qk_norm: bool = False


class ObjectiveRecipe(Section):
    """What the model predicts, and at which timesteps it is asked."""

    prediction_type: Literal["epsilon", "v_prediction"] = "v_prediction"
    timesteps: Literal["uniform", "logit-normal"] = "uniform"
    timestep_mean: float = 0.0
    timestep_std: PositiveFloat = 1.0
    min_snr_gamma: PositiveFloat | None = None

    @model_validator(mode="after")
    def _shape_needs_logit_normal(self) -> Self:
        if self.timesteps == "uniform" and {"timestep_mean", "timestep_std"} & self._changed():
            raise ValueError("timestep_mean and timestep_std would be ignored with uniform timesteps")
        return self

    def _changed(self) -> set[str]:
        fields = type(self).model_fields
        return {name for name in fields if getattr(self, name) != fields[name].default}


class CaptionRecipe(Section):
    """`short_fraction` of the draws take the short caption, the others the dense one; then dropout to ""."""

    short_fraction: Fraction = 0.4
    dropout: Fraction = 0.1


class SamplesRecipe(Section):
    """The validation grid: fixed prompts, fixed seeds."""

    prompts: tuple[str, ...] = ()
    num_steps: PositiveInt = 20
    guidance_scale: PositiveFloat = 4.5


class TransformerRecipe(Section):
    """`start`: an exported pipeline folder whose transformer training goes on from."""

    kind: Literal["transformer"]
    run: RunRecipe
    optimizer: OptimizerRecipe = OptimizerRecipe()
    pool: PoolRecipe
    autoencoder: Path
    text_encoder: Path
    start: Path | None = None
    train_text_encoder: bool = False
    max_shard_size: str = Field(default="10GB", pattern=r"^[1-9]\d*[KMG]B$")
    image_size: PositiveInt = 128
    model: TransformerModelRecipe = TransformerModelRecipe()
    objective: ObjectiveRecipe = ObjectiveRecipe()
    captions: CaptionRecipe = CaptionRecipe()
    samples: SamplesRecipe = SamplesRecipe()


Recipe = AutoencoderRecipe | TextEncoderRecipe | TransformerRecipe
_ADAPTER: TypeAdapter[Recipe] = TypeAdapter(Annotated[Recipe, Field(discriminator="kind")])


def packaged_recipes() -> list[str]:
    """Names of the recipes in the package, without the ending."""
    folder = resources.files("pixart_sigma.training") / "recipes"
    return sorted(
        entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")
    )


def read_recipe_text(recipe: str) -> str:
    """The TOML of a packaged recipe (by name) or of a file (by path). Raises RecipeError."""
    if recipe in packaged_recipes():
        return (resources.files("pixart_sigma.training") / "recipes" / f"{recipe}.toml").read_text("utf-8")
    try:
        return Path(recipe).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"recipe {recipe!r} is neither a readable TOML file nor one of: {', '.join(packaged_recipes())}"
        ) from error


def load_recipe(recipe: str, overrides: list[str] | None = None) -> Recipe:
    """A checked recipe; `overrides` are `a.b=c`, c in TOML syntax (bare words are taken as strings).

    Raises RecipeError with one line for an unknown recipe, malformed TOML, or a value that breaks a rule.
    """
    try:
        table: dict[str, Any] = tomllib.loads(read_recipe_text(recipe))
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"recipe {recipe!r} is not TOML: {_one_line(str(error))}") from error
    for override in overrides or []:
        _apply(table, override)
    try:
        return _ADAPTER.validate_python(table)
    except ValidationError as error:
        raise RecipeError(f"recipe {recipe!r}: " + "; ".join(_problems(error))) from error


def dump_recipe(recipe: Recipe) -> str:
    """TOML from which `load_recipe` makes the same recipe again."""
    table = recipe.model_dump(mode="json", exclude_none=True)
    return "\n".join(_table_lines(table, ())) + "\n"


def _apply(table: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        raise RecipeError(f"override {override!r} is not of the form a.b=value (--set run.steps=100)")
    for key in keys[:-1]:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise RecipeError(f"override {override!r}: {key!r} is a value, not a table")
    table[keys[-1]] = _toml_value(text.strip())


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _problems(error: ValidationError) -> list[str]:
    problems = []
    for problem in error.errors():
        # The first part of the location repeats the discriminator, which the user never wrote as a table.
        place = ".".join(str(part) for part in problem["loc"][1:]) or "recipe"
        problems.append(f"{place}: {_one_line(problem['msg'].removeprefix('Value error, '))}")
    return problems


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _table_lines(table: dict[str, Any], path: tuple[str, ...]) -> list[str]:
    lines = [f"[{'.'.join(path)}]"] if path else []
    # A JSON scalar or list of scalars is TOML too, but for null, which never gets here.
    lines += [
        f"{key} = {json.dumps(value, ensure_ascii=False)}"
        for key, value in table.items()
        if not isinstance(value, dict)
    ]
    for key, value in table.items():
        if isinstance(value, dict):
            lines += ["", *_table_lines(value, (*path, key))]
    return lines
