"""The packaged recipes say what was released, what the paper says, and what made the pocket model."""

import pytest

from pixart_sigma.errors import RecipeError
from pixart_sigma.training.recipe import (
    AutoencoderRecipe,
    CaptionReaderRecipe,
    TransformerRecipe,
    load_recipe,
    packaged_recipes,
)
from pixart_sigma.training.recipe.process import microbatch

# Name → warm-up, batch, processes it is meant for, resolution, compressed. Sources: the recipes' comments.
STAGES = {
    "sigma-256-vae-swap": (1000, 64 * 32, 32, 256, False),
    "sigma-512": (1000, 48 * 32, 32, 512, False),
    "sigma-1024": (1000, 12 * 32, 32, 1024, False),
    "sigma-2k": (100, 4 * 16, 16, 2048, False),
    "sigma-4k": (100, 16, 16, 2880, True),
    "sigma-1024-kv": (500, 16 * 32, 32, 1024, True),
    "sigma-2k-kv": (100, 4 * 16, 16, 2048, True),
}


def transformer(name: str) -> TransformerRecipe:
    recipe = load_recipe(name)
    assert isinstance(recipe, TransformerRecipe)
    return recipe


def test_these_are_packaged() -> None:
    chain = {name.removeprefix("pocket-") for name in CHAIN} | {"alpha", "alpha-autoencoder", "autoencoder"}
    pocket = chain | {"text-encoder", "reader", "lora"}
    judges = {"checker", "image-text"}
    others = {"study-base", "study-tune", "sigma-512-lora", "sigma-512-pokemon", "sigma-512-dreambooth"}
    assert set(packaged_recipes()) == STAGES.keys() | others | {f"pocket-{name}" for name in pocket | judges}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_has_the_released_hyper_parameters(name: str) -> None:
    warmup, batch, processes, resolution, compressed = STAGES[name]
    recipe = transformer(name)
    optimizer, rate, run = recipe.optimizer, recipe.rate, recipe.run
    assert (optimizer.kind, optimizer.learning_rate, optimizer.weight_decay) == ("came", 2e-5, 0)
    assert (optimizer.betas, optimizer.eps) == ((0.9, 0.999, 0.9999), (1e-30, 1e-16))
    assert (rate.kind, rate.warmup_steps, rate.reference_batch_size) == ("constant", warmup, 256)
    assert (run.gradient_clip, run.batch_size, run.precision) == (0.01, batch, "bf16")
    assert microbatch(run, processes) * processes == batch
    assert recipe.parallel.activation_checkpointing == "full"
    assert recipe.objective.prediction_type == "epsilon"
    assert recipe.objective.timesteps == "uniform"
    assert recipe.objective.min_snr_gamma is recipe.objective.x0_below is None
    assert (recipe.captions.dropout, recipe.captions.null_mask) == (0.1, "caption")
    assert recipe.captions.mix == {"prompt": 0.4, "sharegpt4v": 0.6}
    assert recipe.resolution == resolution
    assert recipe.data.buckets == ("square" if resolution == 256 else "aspect")
    assert recipe.data.latents == recipe.data.embeddings == "cached"
    assert recipe.start is not None
    compression = recipe.start.kv_compression
    assert (compression is not None) == compressed
    if compression is not None:
        assert (compression.window, compression.blocks) == ((2, 2), "deep")
        assert (compression.operator, compression.init) == ("conv", "average")


def test_the_swap_makes_alpha_sigma() -> None:
    start = transformer("sigma-256-vae-swap").start
    assert start is not None
    assert (start.caption_length, start.interpolation_scale, start.vae_scaling) == (300, 0.5, "config")
    assert start.vae is not None


def test_fine_tunes_are_for_few_pictures() -> None:
    lora, dreambooth, pokemon = (
        transformer(f"sigma-512-{name}") for name in ("lora", "dreambooth", "pokemon")
    )
    assert lora.lora is not None
    assert lora.lora.rank == 16
    assert lora.data.partial_batches == dreambooth.data.partial_batches == "wrap"
    assert dreambooth.lora is not None
    assert dreambooth.data.class_images is not None
    source = dreambooth.data.sources[0]
    # Both halves weigh alike with five pictures.
    assert source.caption
    assert source.repeats * 5 == dreambooth.data.class_images.num
    assert pokemon.lora is None
    assert (pokemon.optimizer.kind, pokemon.optimizer.learning_rate) == ("adamw", 2e-6)
    assert pokemon.run.steps == 50 * (833 // pokemon.run.batch_size)
    for recipe in (lora, dreambooth, pokemon):
        assert recipe.resolution == 512


CHAIN = (
    "pocket-vae-swap",
    "pocket-captions",
    "pocket-256",
    "pocket-512",
    "pocket-1024",
    "pocket-mixed",
    "pocket-binding",
)


def test_every_link_of_the_pocket_chain_starts_from_the_one_before() -> None:
    alpha = transformer("pocket-alpha")
    assert alpha.scratch is not None
    assert str(alpha.scratch.autoencoder) == "runs/alpha-autoencoder/export"
    links = [transformer(name).start for name in CHAIN]
    models = [str(link.model) for link in links if link is not None]
    assert models == [
        f"runs/{name}/export" for name in ("alpha", "vae-swap", "captions", "256", "512", "1024", "mixed")
    ]
    reader, binding = load_recipe("pocket-reader"), links[-1]
    assert isinstance(reader, CaptionReaderRecipe)
    assert str(reader.start) == models[-1]
    assert binding is not None
    assert str(binding.text_encoder) == "runs/reader/export"


def test_the_pocket_chain_does_what_the_paper_does() -> None:
    alpha, swap, captions, fine, _, large, mixed, binding = (
        transformer(name) for name in ("pocket-alpha", *CHAIN)
    )
    assert alpha.scratch is not None
    assert alpha.scratch.caption_length == 120
    assert alpha.captions.mix.keys() == swap.captions.mix.keys() == {"short", "hallucinated"}
    assert swap.start is not None
    assert str(swap.start.vae) == "runs/autoencoder/export"
    assert captions.start is not None
    assert (captions.start.caption_length, captions.captions.mix) == (300, {"dense": 0.6, "short": 0.4})
    assert (captions.train_text_encoder, fine.train_text_encoder) == (True, False)
    assert large.start is not None
    compression = large.start.kv_compression
    assert compression is not None
    assert (compression.window, compression.blocks, compression.init) == ((2, 2), "deep", "average")
    assert [source.resolution or mixed.resolution for source in mixed.data.sources] == [128, 256, 512, 1024]
    assert binding.data == mixed.data


def test_the_pocket_chain_shares_what_it_does_not_change() -> None:
    recipes = [transformer(name) for name in ("pocket-alpha", *CHAIN)]
    assert [recipe.resolution for recipe in recipes] == [128, 128, 128, 256, 512, 1024, 256, 256]
    for recipe in recipes:
        assert recipe.objective == recipes[0].objective
        assert (recipe.optimizer.kind, recipe.data.buckets) == ("muon", "square")
        assert recipe.data.validation is not None
        assert recipe.data.validation.drawn is not None
        assert recipe.data.validation.drawn.first_seed == 10**9
        assert recipe.export.max_shard_size == "10MB"


def test_the_first_autoencoder_is_the_later_ones_shape_and_learns_less() -> None:
    first, later = load_recipe("pocket-alpha-autoencoder"), load_recipe("pocket-autoencoder")
    assert isinstance(first, AutoencoderRecipe)
    assert isinstance(later, AutoencoderRecipe)
    assert first.model == later.model
    assert first.run.steps < later.run.steps / 4


def test_what_starts_from_the_pocket_model_predicts_velocity_as_it_does() -> None:
    assert transformer("pocket-lora").objective.prediction_type == "v_prediction"


def test_the_tutorials_lora_fits_two_cores() -> None:
    recipe = transformer("pocket-lora")
    assert recipe.lora is not None
    assert recipe.start is not None
    assert str(recipe.start.model) == "pocket"
    assert (recipe.run.batch_size, recipe.resolution, recipe.run.compile) == (8, 256, False)
    assert recipe.data.partial_batches == "wrap"
    assert recipe.data.latents == recipe.data.embeddings == "cached"


def test_scenes_of_the_evaluation_are_not_trained_on() -> None:
    override = "data.sources.0.drawn.first_seed=999999999"
    with pytest.raises(RecipeError, match=r"seed 1000000000 on are for validation.*first_seed"):
        load_recipe("pocket-256", [override])
