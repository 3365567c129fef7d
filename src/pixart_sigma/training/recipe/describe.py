"""What a recipe would do, in a few lines for people, and what it needs that is not there.

Looks at whether folders exist, and into none of them.
"""

from __future__ import annotations

from pathlib import Path

from pixart_sigma.resolution import TOKEN_SIDE, aspect_buckets
from pixart_sigma.training.recipe.data import DataRecipe, SourceRecipe
from pixart_sigma.training.recipe.kinds import Recipe
from pixart_sigma.training.recipe.process import OptimizerRecipe, RunRecipe
from pixart_sigma.training.recipe.small_models import (
    AutoencoderRecipe,
    CaptionReaderRecipe,
    CheckerRecipe,
    ImageTextRecipe,
    TextEncoderRecipe,
)
from pixart_sigma.training.recipe.start import KVCompressionRecipe, ScratchRecipe, StartRecipe
from pixart_sigma.training.recipe.transformer import TransformerRecipe
from pixart_sigma.weights.catalogue import releases
from pixart_sigma.weights.folder import POCKET

_STARTS = ("model", "components", "vae", "text_encoder")


def describe(recipe: Recipe) -> list[str]:
    """What is trained, from what, on what, for how long, how, and what is written."""
    lines = [_subject(recipe)]
    if isinstance(recipe, TransformerRecipe):
        lines += [f"begins with {_beginning(recipe)}", f"learns from {_data(recipe.data)}"]
    return [*lines, _length(recipe.run), _updates(recipe), _outputs(recipe)]


def missing(recipe: Recipe) -> list[str]:
    """Folders and files that the recipe names and that are not there: "start.model models/x"."""
    return [f"{key} {path}" for key, path in inputs(recipe) if not path.exists()]


def inputs(recipe: Recipe) -> list[tuple[str, Path]]:
    """Folders and files that the recipe names, each with its key."""
    if isinstance(recipe, CaptionReaderRecipe):
        return _unnamed([("start", recipe.start)])
    if not isinstance(recipe, TransformerRecipe):
        return []
    named: list[tuple[str, Path | None]] = []
    if recipe.start is not None:
        named += [(f"start.{key}", getattr(recipe.start, key)) for key in _STARTS]
    if recipe.scratch is not None:
        named += [(f"scratch.{key}", getattr(recipe.scratch, key)) for key in ("autoencoder", "text_encoder")]
    if recipe.export.blend is not None:
        named.append(("export.blend.model", recipe.export.blend.model))
    for index, source in enumerate(recipe.data.sources):
        named.append((f"data.sources.{index}.{source.kind}", source.place))
    if recipe.data.validation is not None:
        named.append((f"data.validation.{recipe.data.validation.kind}", recipe.data.validation.place))
    return _unnamed(named)


def _unnamed(named: list[tuple[str, Path | None]]) -> list[tuple[str, Path]]:
    """Without what is left out, and without models that are known by name."""
    by_name = {POCKET, *releases(), *(release.repository for release in releases().values())}
    return [(key, path) for key, path in named if path is not None and str(path) not in by_name]


def _subject(recipe: Recipe) -> str:
    if isinstance(recipe, AutoencoderRecipe):
        sizes = " and ".join(f"{size} px" for size in recipe.image_sizes)
        return f"an autoencoder, on crops of {recipe.crop_size} px from {recipe.pool.num_scenes:,} scenes at {sizes}"
    if isinstance(recipe, TextEncoderRecipe):
        return f"a text encoder, on the captions of {recipe.num_scenes:,} scenes, {recipe.masked:.0%} masked"
    if isinstance(recipe, CaptionReaderRecipe):
        scenes = f"{recipe.num_scenes:,} scenes"
        return f"the text encoder of {recipe.start}, to tell what the captions of {scenes} say"
    if isinstance(recipe, CheckerRecipe):
        return f"a checker, on {_judged(recipe)}"
    if isinstance(recipe, ImageTextRecipe):
        return f"an image-text model, on {_judged(recipe)} and their captions"
    what = "a transformer"
    if recipe.lora is not None:
        kind = "DoRA" if recipe.lora.dora else "LoRA"
        what = f"a {kind} of rank {recipe.lora.rank} over a base in {recipe.lora.base}"
    elif recipe.train_text_encoder:
        what = "a transformer and its text encoder"
    return f"{what}, at {_resolution(recipe)}"


def _judged(recipe: CheckerRecipe | ImageTextRecipe) -> str:
    sizes = " and ".join(f"{size} px" for size in recipe.image_sizes)
    return f"{recipe.pool.num_scenes:,} scenes at each of {sizes}"


def _resolution(recipe: TransformerRecipe) -> str:
    if recipe.resolution is None:
        return "the starting model's resolution"
    if recipe.data.buckets == "square":
        return f"{recipe.resolution} px, square"
    buckets = list(aspect_buckets(recipe.resolution).values())
    (tallest, narrowest), (flattest, widest) = buckets[0], buckets[-1]
    if tallest < flattest:
        (tallest, narrowest), (flattest, widest) = (flattest, widest), (tallest, narrowest)
    return f"{recipe.resolution} px, {len(buckets)} buckets from {narrowest}x{tallest} to {widest}x{flattest}"


def _beginning(recipe: TransformerRecipe) -> str:
    if recipe.scratch is not None:
        return _fresh(recipe.scratch)
    assert recipe.start is not None  # the recipe has one of the two
    changes = _surgery(recipe.start)
    return f"{recipe.start.model}" + ("".join(f"; {change}" for change in changes) or ", unchanged")


def _fresh(scratch: ScratchRecipe) -> str:
    width = scratch.num_attention_heads * scratch.attention_head_dim
    compression = "" if scratch.kv_compression is None else f", {_compression(scratch.kv_compression)}"
    return f"fresh weights: {scratch.num_layers} blocks of width {width}{compression}"


def _surgery(start: StartRecipe) -> list[str]:
    """What is changed about the starting model; empty: nothing."""
    changes = []
    if start.resolution is not None:
        how = "" if start.interpolation_scale is None else f", scale {start.interpolation_scale:g}"
        tokens = start.resolution // TOKEN_SIDE
        changes.append(f"positions for {tokens} x {tokens} tokens{how}")
    elif start.interpolation_scale is not None:
        changes.append(f"interpolation scale {start.interpolation_scale:g}")
    if start.vae is not None:
        changes.append(f"autoencoder from {start.vae}, latents scaled as {_scaling(start)}")
    if start.text_encoder is not None:
        changes.append(f"text encoder from {start.text_encoder}")
    if start.kv_compression is not None:
        changes.append(_compression(start.kv_compression))
    if start.caption_length is not None:
        changes.append(f"captions of up to {start.caption_length} tokens")
    for name, wanted in (("QK norm", start.qk_norm), ("micro-conditioning", start.micro_conditioning)):
        if wanted is not None:
            changes.append(f"{name} {'on' if wanted else 'off'}")
    return changes


def _scaling(start: StartRecipe) -> str:
    return "its config.json says" if start.vae_scaling == "config" else "estimated from the data"


def _compression(compression: KVCompressionRecipe) -> str:
    height, width = compression.window
    blocks = compression.blocks if isinstance(compression.blocks, str) else list(compression.blocks)
    limit = f", from {compression.from_tokens} tokens on" if compression.from_tokens else ""
    return f"keys and values compressed {height}x{width} ({compression.operator}, blocks {blocks}{limit})"


def _data(data: DataRecipe) -> str:
    sources = [_source(source) for source in data.sources]
    if data.class_images is not None:
        sources.append(f'{data.class_images.num} class images of "{data.class_images.prompt}"')
    online = [name for name in ("latents", "embeddings") if getattr(data, name) == "online"]
    features = f"; {' and '.join(online)} computed at every step" if online else "; features cached"
    return f"{' and '.join(sources)}{features}"


def _source(source: SourceRecipe) -> str:
    times = f" {source.repeats} times" if source.repeats > 1 else ""
    times += f" at {source.resolution} px" if source.resolution is not None else ""
    if source.drawn is not None:
        return f"{source.drawn.num_scenes:,} drawn scenes{times}"
    return f"{source.kind} {source.place}{times}"


def _length(run: RunRecipe) -> str:
    parts = f" in {run.accumulate} parts" if run.accumulate > 1 else ""
    return f"{run.steps:,} steps of {run.batch_size:,}{parts}, {run.precision}, seed {run.seed}"


def _updates(recipe: Recipe) -> str:
    optimizer, rate = recipe.optimizer, recipe.rate
    warmup = f" after {rate.warmup_steps:,} of warm-up" if rate.warmup_steps else ""
    final = "" if rate.kind == "constant" else f" to {rate.final:g} of it"
    return (
        f"{optimizer.kind}, learning rate {_rate(recipe)}{_other_rates(optimizer)}, {rate.kind}{final}{warmup}, "
        f"clip {recipe.run.gradient_clip:g}, average {recipe.run.ema_decay:g}{_decay(optimizer)}"
    )


def _rate(recipe: Recipe) -> str:
    peak, reference = recipe.optimizer.learning_rate, recipe.rate.reference_batch_size
    if reference is None:
        return f"{peak:g}"
    scaled = peak * (recipe.run.batch_size / reference) ** 0.5
    return f"{scaled:.3g} ({peak:g} at a batch of {reference})"


def _other_rates(optimizer: OptimizerRecipe) -> str:
    others = (
        ("matrices", optimizer.matrix_learning_rate),
        ("relative positions", optimizer.position_learning_rate),
    )
    told = [f"{rate:g} of {what}" for what, rate in others if rate is not None]
    return f" ({', '.join(told)})" if told else ""


def _decay(optimizer: OptimizerRecipe) -> str:
    return f", weight decay {optimizer.weight_decay:g}" if optimizer.weight_decay else ""


def _outputs(recipe: Recipe) -> str:
    run = recipe.run
    kept = f"the last {run.keep_last}" + (f" and every {run.keep_every:,}th" if run.keep_every else "")
    lines = f"a checkpoint every {run.checkpoint_every:,} steps, {kept} kept; validated every {run.validate_every:,}"
    if not isinstance(recipe, TransformerRecipe):
        return lines
    what = "adapter" if recipe.lora is not None else "pipeline"
    weights = "averaged" if recipe.export.weights == "average" else "last"
    blend = recipe.export.blend
    mixed = f" ({blend.share:.0%} of {blend.model} blended in)" if blend is not None else ""
    dtype = "fp32" if recipe.lora is not None else recipe.export.dtype
    return f"{lines}; the {what} with the {weights} weights{mixed} in {dtype}"
