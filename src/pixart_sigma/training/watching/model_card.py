"""README.md of what a training exports, with the head that the Hugging Face Hub reads. Knows nothing of weights.

What the card says, its caller knows; absolute paths are shortened here, since a card is made to be published.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined

import pixart_sigma
from pixart_sigma.errors import InvalidInput
from pixart_sigma.training.recipe import TransformerRecipe
from pixart_sigma.training.recipe.transformer import BlendRecipe
from pixart_sigma.training.watching.privacy import without_paths
from pixart_sigma.weights.atomic import written_whole

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_PREDICTIONS = {"epsilon": "the noise", "v_prediction": "the velocity"}


@dataclass(frozen=True)
class ModelFacts:
    """What a card tells. `training`: (label, words), as `training_rows` makes them.

    base_model: the Hub's id of the model that training started from, if it has one; base_name: what it is called
    otherwise. adapter: what an adapter is ("LoRA of rank 16"); None: the folder is a whole pipeline. sources: name →
    number of pictures. needs_package: what the transformer has and diffusers' has not ("KV compression").
    pipeline_class: diffusers', that opens it. caption_length: in tokens, where it is not that class's.
    """

    name: str
    resolutions: Sequence[int]
    training: Sequence[tuple[str, str]]
    sources: Mapping[str, int] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    surgery: Sequence[str] = ()
    limits: Sequence[str] = ()
    base_model: str | None = None
    base_name: str | None = None
    license: str | None = None
    adapter: str | None = None
    needs_package: str | None = None
    pipeline_class: str = "PixArtSigmaPipeline"
    caption_length: int | None = None


def write_model_card(folder: Path, facts: ModelFacts) -> Path:
    """Write `folder/README.md`, in place of any that peft or diffusers has left, and return its path.

    Raises InvalidInput for a base_model that is no id of the Hub.
    """
    if facts.base_model is not None and not _HUB_ID.fullmatch(facts.base_model):
        raise InvalidInput(
            f"base_model {facts.base_model!r} is no id of the Hub (OWNER/NAME); give base_name instead"
        )
    # Markdown in a file: there is no page that a word could break out into.
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = (resources.files(__package__) / "model_card.md.jinja").read_text("utf-8")
    base = f"`{facts.base_model}`" if facts.base_model else facts.base_name or "another model"
    card = environment.from_string(template).render(
        facts=facts,
        front_matter=_front_matter(facts),
        base=base,
        arguments=_arguments(facts),
        training=[(_cell(label), _cell(words)) for label, words in facts.training],
        sources=[(_cell(name), f"{num:,}") for name, num in facts.sources.items()],
        figures=[(_cell(name.replace("_", " ")), f"{value:.4g}") for name, value in facts.figures.items()],
        surgery=facts.surgery,
        limits=[*_limits(facts), *facts.limits],
        version=pixart_sigma.__version__,
    )
    path = folder / "README.md"
    with written_whole(path) as temporary:
        temporary.write_text(re.sub(r"\n{3,}", "\n\n", without_paths(card)).strip() + "\n", "utf-8")
    return path


def training_rows(recipe: TransformerRecipe, recipe_name: str | None = None) -> list[tuple[str, str]]:
    """What a recipe says of a training, in words for a card."""
    run, optimizer, objective, captions = recipe.run, recipe.optimizer, recipe.objective, recipe.captions
    rate = f"{optimizer.learning_rate:g}, {recipe.rate.kind}"
    if recipe.rate.warmup_steps:
        rate += f" after {recipe.rate.warmup_steps:,} steps of warm-up"
    timesteps: str = objective.timesteps
    if timesteps == "logit-normal":
        timesteps += f" (mean {objective.timestep_mean:g}, deviation {objective.timestep_std:g})"
    rows = [
        ("Recipe", recipe_name or ""),
        ("Steps", f"{run.steps:,} of {run.batch_size:,} pictures"),
        ("Resolution", _resolution(recipe)),
        ("Predicts", f"{_PREDICTIONS[objective.prediction_type]} (`{objective.prediction_type}`)"),
        ("Timesteps", timesteps),
        ("Weighting", f"min-SNR, γ {objective.min_snr_gamma:g}" if objective.min_snr_gamma else ""),
        ("Captions", ", ".join(f"{name} {share:g}" for name, share in captions.mix.items())),
        ("Caption dropout", f"{captions.dropout:g}"),
        ("Optimiser", f"{optimizer.kind}, weight decay {optimizer.weight_decay:g}"),
        ("Learning rate", rate),
        ("Precision", run.precision),
        (
            "Weights",
            f"moving average, decay {run.ema_decay:g}"
            if recipe.export.weights == "average"
            else "those of the last step",
        ),
        ("Blend", _blend(recipe.export.blend) if recipe.export.blend is not None else ""),
    ]
    return [(label, words) for label, words in rows if words]


def _resolution(recipe: TransformerRecipe) -> str:
    if not recipe.resolution:
        return ""
    sizes = _sizes([source.resolution or recipe.resolution for source in recipe.data.sources])
    return f"{sizes}, {recipe.data.buckets} buckets"


def _blend(blend: BlendRecipe) -> str:
    return f"{blend.share:.0%} of the weights are those of `{blend.model.name}`; held-out figures were measured before"


def _front_matter(facts: ModelFacts) -> str:
    from huggingface_hub import ModelCardData

    tags = ["text-to-image", "diffusers", "pixart-sigma"]
    data = ModelCardData(
        license=facts.license,
        library_name="peft" if facts.adapter else "diffusers",
        pipeline_tag="text-to-image",
        base_model=facts.base_model,
        base_model_relation=("adapter" if facts.adapter else "finetune") if facts.base_model else None,
        tags=[*tags, "lora"] if facts.adapter else tags,
    )
    return str(data.to_yaml()).strip()


def _arguments(facts: ModelFacts) -> str:
    """What makes diffusers' pipeline do as ours."""
    length = f", max_sequence_length={facts.caption_length}" if facts.caption_length else ""
    return f"clean_caption=False, use_resolution_binning=False{length}"


def _limits(facts: ModelFacts) -> list[str]:
    return [
        f"It was trained around {_sizes(facts.resolutions)}; sizes far from that are untried.",
        "It draws what its pictures and captions taught it, with their gaps and leanings.",
        "Nothing filters what it makes.",
    ]


def _sizes(resolutions: Sequence[int]) -> str:
    *others, last = (f"{resolution}²" for resolution in sorted(set(resolutions)))
    return f"{', '.join(others)} and {last}" if others else last


def _cell(text: str) -> str:
    """A text that does not end its table's cell."""
    return " ".join(text.split()).replace("|", "\\|")
