"""What a reproduction would train, and about how long that takes, from stated rates. Trains nothing.

The rates are those of two cores (AMD Zen 4) on which the pocket model was made: 28 images/s for a transformer of 9 M
weights at 64 tokens, here taken as inversely proportional to weights and tokens, a caption's counted with the part of a
block that sees them; 0.18 s for a step of 16 crops of an autoencoder; 64 captions/s of a text encoder.
"""

from __future__ import annotations

from dataclasses import dataclass

from pixart_sigma.errors import InvalidInput
from pixart_sigma.reproduction.links import LINKS, link_recipe, shrunk
from pixart_sigma.reproduction.scale import FAST, FULL, Scale
from pixart_sigma.reproduction.studies import STUDIES
from pixart_sigma.reproduction.study import Cell, Stage, Study, stages_of
from pixart_sigma.resolution import num_image_tokens
from pixart_sigma.training.recipe import Recipe, TransformerRecipe, load_recipe

WORDS = ("table1", "fig6")
"""Two names of one study."""
CHAIN = "chain"
NAMES = (*WORDS, *STUDIES, CHAIN)
MOST_SEEDS = 100

CAPTION_TOKENS = 55 / 8
"""A caption's, of which a block makes keys and values alone, as so many image tokens."""
WEIGHT_TOKENS_PER_SECOND = 28 * 9e6 * (64 + CAPTION_TOKENS)
CROPS_PER_SECOND = 16 / 0.18
CAPTIONS_PER_SECOND = 64.0
CAPTIONS_READ_PER_SECOND = 450.0
_RATES = {
    "autoencoder": CROPS_PER_SECOND,
    "text-encoder": CAPTIONS_PER_SECOND,
    "caption-reader": CAPTIONS_READ_PER_SECOND,
}
_PASSES_OF_TRAINING = 3
"""A sample's forward pass, and its backward pass, which takes twice as long."""


@dataclass(frozen=True)
class Estimate:
    """A training in numbers: steps, samples and seconds, and the transformer's `weights` and `side` in pixels, which
    those that start from it have too.
    """

    steps: int
    samples: int
    seconds: float
    weights: float
    side: int


def check(name: str, num_seeds: int) -> None:
    """Raises InvalidInput for an unknown name or a number of seeds that allows no verdict."""
    if name not in NAMES:
        raise InvalidInput(f"unknown reproduction {name!r}; choose one of {', '.join(NAMES)}")
    if not 2 <= num_seeds <= MOST_SEEDS:
        raise InvalidInput(
            f"--seeds {num_seeds} is outside 2 to {MOST_SEEDS}; with one seed no noise can be told"
        )


def plan(name: str, num_seeds: int, fast: bool) -> list[str]:
    """Lines that tell what `reproduce` would do, and for how long. Raises InvalidInput as it does."""
    check(name, num_seeds)
    scale = FAST if fast else FULL
    if name in WORDS:
        return [f"{name}: the captions of {scale.num_captions:,} scenes are read; minutes, and no training"]
    if name == CHAIN:
        return plan_chain(scale, fast)
    return plan_study(STUDIES[name](scale), scale, num_seeds)


def plan_chain(scale: Scale, fast: bool) -> list[str]:
    """The links of the pocket model, one after the other."""
    overrides = {link: shrunk(link, scale) if fast else [] for link in LINKS}
    recipes = {link: load_recipe(link_recipe(link), overrides[link]) for link in LINKS}
    return ["chain: what each link of the pocket model costs and gains", *plan_recipes(recipes)]


def estimate(recipe: Recipe, start: Estimate | None) -> Estimate:
    """A recipe's steps, samples and time; `start`: the transformer that it starts from, if it does."""
    run = recipe.run
    samples = run.steps * run.batch_size
    weights, side = (start.weights, start.side) if start is not None else (0.0, 0)
    if isinstance(recipe, TransformerRecipe):
        if recipe.scratch is not None:
            width = recipe.scratch.num_attention_heads * recipe.scratch.attention_head_dim
            weights = recipe.scratch.num_layers * 16.0 * width**2
        side = recipe.resolution or side
        rate = _mixed_rate(recipe, weights, side)
    else:
        rate = _RATES[recipe.kind]
    return Estimate(run.steps, samples, samples / rate, weights, side)


def _mixed_rate(recipe: TransformerRecipe, weights: float, side: int) -> float:
    """Where sources have sizes of their own."""
    drawn = [
        (source.drawn.num_scenes * source.repeats, source.resolution or side)
        for source in recipe.data.sources
        if source.drawn is not None
    ]
    if not drawn:
        return samples_per_second(weights, side)
    seconds = sum(number / samples_per_second(weights, each) for number, each in drawn)
    return sum(number for number, _ in drawn) / seconds


def samples_per_second(weights: float, side: int) -> float:
    """Of training a transformer on square pictures."""
    return WEIGHT_TOKENS_PER_SECOND / (weights * (num_image_tokens(side, side) + CAPTION_TOKENS))


def plan_study(study: Study, scale: Scale, num_seeds: int) -> list[str]:
    """Lines: the stages, the cells, and the hours of all seeds together."""
    lines = [f"{study.name}: {study.question}", "", "stages (a seed):"]
    total = 0.0
    for stage in stages_of(study.cells):
        found = _of_stage(stage)
        total += found.seconds * (num_seeds if stage.seeded else 1)
        lines.append(_line(stage.name, found) + ("" if stage.seeded else ", once for all seeds"))
    lines += ["", "cells, and the steps after which they are measured:"]
    lines += [f"  {cell.label}: {', '.join(f'{steps:,}' for steps in cell.at)}" for cell in study.cells]
    seconds = [_measuring_seconds(cell, scale) for cell, _ in study.points]
    num = len(seconds) * len(study.prompts) * num_seeds
    measuring = sum(seconds) * len(study.prompts) * num_seeds
    return [
        *lines,
        "",
        f"{num_seeds} seeds: about {total / 3600:.1f} h of training and {measuring / 3600:.1f} h for {num} times "
        f"{scale.num_prompts} pictures of {scale.num_steps} steps; stages that another study has left in the folder "
        "are not trained again",
        rates(),
    ]


def plan_recipes(recipes: dict[str, Recipe]) -> list[str]:
    """The same for trainings in a row, by name."""
    lines, total, found = [], 0.0, None
    for name, recipe in recipes.items():
        found = estimate(recipe, found)
        total += found.seconds
        lines.append(_line(name, found))
    return [*lines, "", f"about {total / 3600:.1f} h of training", rates()]


def rates() -> str:
    """The rates on which estimates stand."""
    return (
        f"Rates of two cores: a transformer of 9 M weights at 64 tokens {samples_per_second(9e6, 128):.0f} samples/s, "
        f"in inverse proportion to weights and tokens; autoencoders {CROPS_PER_SECOND:.0f} crops/s; text encoders "
        f"{CAPTIONS_PER_SECOND:.0f} captions/s, as readers {CAPTIONS_READ_PER_SECOND:.0f}. Drawing, caching, and what "
        "small matrices waste, are not counted."
    )


def _of_stage(stage: Stage) -> Estimate:
    starts = {name: _of_stage(given.stage) for name, given in stage.inputs if given is not None}
    recipe = load_recipe(stage.recipe, [*stage.overrides, f"run.steps={stage.lengths[-1]}"])
    return estimate(recipe, starts.get("start.model"))


def _measuring_seconds(cell: Cell, scale: Scale) -> float:
    """Of the pictures alone: two forward passes a step, with and without the prompt."""
    found = _of_stage(cell.stage)
    passes_per_second = samples_per_second(found.weights, found.side) * _PASSES_OF_TRAINING
    return scale.num_prompts * scale.num_steps * 2 / passes_per_second


def _line(name: str, found: Estimate) -> str:
    return f"  {name}: {found.steps:,} steps, {found.samples:,} samples, about {found.seconds / 60:.0f} min"
