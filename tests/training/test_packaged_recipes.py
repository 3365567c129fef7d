"""The packaged recipes say what was released, what the paper says, and what made the pocket model."""

import pytest

from pixart_sigma.training.recipe import (
    AutoencoderRecipe,
    TextEncoderRecipe,
    TransformerRecipe,
    load_recipe,
    packaged_recipes,
)
from pixart_sigma.training.recipe.sections import DrawnRecipe, microbatch

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
    pocket = {"autoencoder", "text-encoder", "base-128", "256", "512", "lora"}
    others = {"sigma-512-lora", "sigma-512-pokemon", "sigma-512-dreambooth"}
    assert set(packaged_recipes()) == STAGES.keys() | others | {f"pocket-{name}" for name in pocket}


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


def test_the_pocket_models_transformers_are_trained_as_they_were() -> None:
    base, fine = transformer("pocket-base-128"), transformer("pocket-256")
    assert (base.run.steps, base.run.batch_size, base.run.ema_decay) == (1500, 128, 0.998)
    assert (base.run.validate_every, base.run.checkpoint_every) == (750, 100)
    assert (base.optimizer.learning_rate, base.optimizer.matrix_learning_rate) == (1e-3, 2e-3)
    assert (base.rate.kind, base.rate.warmup_steps, base.rate.final) == ("cosine", 200, 0.02)
    assert base.train_text_encoder
    assert base.scratch is not None
    scratch = base.scratch
    assert (scratch.num_layers, scratch.num_attention_heads, scratch.attention_head_dim) == (8, 4, 64)
    assert (scratch.sample_size, scratch.interpolation_scale, scratch.learned_variance) == (16, 0.25, True)
    assert base.data.sources[0].drawn == DrawnRecipe(num_scenes=32000)
    assert base.data.validation is not None
    assert base.data.validation.drawn == DrawnRecipe(num_scenes=256, first_seed=10**9)

    assert (fine.run.steps, fine.run.batch_size, fine.run.ema_decay) == (800, 32, 0.99)
    assert (fine.run.validate_every, fine.run.checkpoint_every) == (200, 50)
    assert (fine.optimizer.learning_rate, fine.optimizer.matrix_learning_rate) == (5e-4, 1e-3)
    assert (fine.rate.kind, fine.rate.warmup_steps, fine.rate.final) == ("cosine", 40, 0.02)
    assert not fine.train_text_encoder
    assert fine.data.sources[0].drawn == DrawnRecipe(num_scenes=3000)
    assert fine.data.validation is not None
    assert fine.data.validation.drawn == DrawnRecipe(num_scenes=64, first_seed=10**9)

    for recipe in (base, fine):
        assert recipe.optimizer.kind == "muon"
        assert recipe.run.compile
        assert recipe.data.buckets == "square"
        assert recipe.captions.mix == {"short": 0.7, "dense": 0.3}
        assert recipe.captions.dropout == 0.1
        objective = recipe.objective
        assert (objective.prediction_type, objective.timesteps) == ("v_prediction", "logit-normal")
        assert (objective.timestep_mean, objective.timestep_std) == (-0.2, 1.2)
        assert recipe.export.max_shard_size == "10MB"


def test_the_pocket_models_encoders_are_trained_as_they_were() -> None:
    autoencoder, text = load_recipe("pocket-autoencoder"), load_recipe("pocket-text-encoder")
    assert isinstance(autoencoder, AutoencoderRecipe)
    assert (autoencoder.rate.kind, autoencoder.rate.warmup_steps, autoencoder.rate.final) == (
        "cosine",
        200,
        0.01,
    )
    assert (autoencoder.run.steps, autoencoder.optimizer.learning_rate) == (3200, 1.5e-3)
    assert isinstance(text, TextEncoderRecipe)
    assert (text.rate.kind, text.rate.warmup_steps, text.rate.final) == ("cosine", 20, 0.1)
    assert (text.run.steps, text.optimizer.learning_rate) == (120, 2e-3)


@pytest.mark.parametrize("name", ["pocket-256", "pocket-512", "pocket-lora"])
def test_what_starts_from_the_pocket_model_predicts_velocity_as_it_does(name: str) -> None:
    assert transformer(name).objective.prediction_type == "v_prediction"


def test_the_tutorials_lora_fits_two_cores() -> None:
    recipe = transformer("pocket-lora")
    assert recipe.lora is not None
    assert recipe.start is not None
    assert str(recipe.start.model) == "pocket"
    assert (recipe.run.batch_size, recipe.resolution, recipe.run.compile) == (8, 256, False)
    assert recipe.data.partial_batches == "wrap"
    assert recipe.data.latents == recipe.data.embeddings == "cached"
