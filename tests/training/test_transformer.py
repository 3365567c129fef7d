import shutil
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from comparison import relative_error
from pixart_sigma.errors import RecipeError
from pixart_sigma.pipeline.text_to_image import TextToImage
from pixart_sigma.training.draws import keyed_generator
from pixart_sigma.training.recipe import ObjectiveRecipe
from pixart_sigma.training.run import train
from pixart_sigma.training.transformer import draw_captions, draw_timesteps
from pixart_sigma.weights.transformer import load_transformer

MODEL = [
    "model.num_layers=2",
    "model.num_attention_heads=2",
    "model.attention_head_dim=8",
    "run.device=cpu",
    "run.compile=false",
    "run.batch_size=3",
    "run.warmup_steps=1",
    "run.log_every=1",
    "pool.num_scenes=5",
    "pool.num_validation=3",
    "samples.num_steps=1",
]
BASE = [*MODEL, "model.sample_size=4", "image_size=32", "run.steps=4", "run.checkpoint_every=2"]


def base(tiny: Path) -> list[str]:
    return [*BASE, f"autoencoder={tiny}", f"text_encoder={tiny}"]


@pytest.fixture(scope="module")
def trained(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished base run; read only."""
    output = tmp_path_factory.mktemp("base")
    train("pocket-base-128", output, base(tiny_folder))
    return output


def state(folder: Path) -> dict[str, torch.Tensor]:
    (newest,) = sorted((folder / "checkpoints").glob("step-*"))[-1:]
    return load_file(newest / "weights.safetensors")


def test_the_export_makes_the_pictures_that_diffusers_makes_of_it(trained: Path) -> None:
    from diffusers import PixArtSigmaPipeline

    ours = TextToImage.from_pretrained(trained / "export", dtype="float32")
    noise = torch.randn(1, 4, 4, 4)
    settings = {"height": 32, "width": 32, "guidance_scale": 3.0}
    latents = ours("a red house", num_steps=3, noise=noise, output="latents", **settings).latents

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = PixArtSigmaPipeline.from_pretrained(trained / "export", torch_dtype=torch.float32)
        theirs.set_progress_bar_config(disable=True)
        assert theirs.scheduler.config.prediction_type == "v_prediction"
        expected = theirs(
            "a red house",
            num_inference_steps=3,
            latents=noise,
            output_type="latent",
            use_resolution_binning=False,
            clean_caption=False,
            **settings,
        ).images
    assert relative_error(latents, expected) <= 1e-5


def test_the_export_holds_the_averaged_weights_in_bf16(trained: Path) -> None:
    exported = load_file(trained / "export/transformer/diffusion_pytorch_model.safetensors")
    average = load_file(trained / "checkpoints/step-00000004/average.safetensors")
    assert all(tensor.dtype == torch.bfloat16 for tensor in exported.values())
    for name, tensor in exported.items():
        assert torch.equal(tensor, average[f"transformer.{name}"].bfloat16()), name
    text = load_file(trained / "export/text_encoder/model.safetensors")
    assert torch.equal(text["shared.weight"], average["text_encoder.shared.weight"].bfloat16())


def test_a_cut_run_resumes_bit_for_bit(trained: Path, tiny_folder: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(trained, cut)
    shutil.rmtree(cut / "checkpoints/step-00000004")
    train("pocket-base-128", cut, base(tiny_folder), resume=True)
    for file in ("weights", "average"):
        path = f"checkpoints/step-00000004/{file}.safetensors"
        assert (cut / path).read_bytes() == (trained / path).read_bytes()
    assert (cut / "samples/step-00000004.png").read_bytes() == (
        trained / "samples/step-00000004.png"
    ).read_bytes()


def test_the_text_encoder_learns_along_or_is_frozen(trained: Path, tiny_folder: Path, tmp_path: Path) -> None:
    before = load_file(tiny_folder / "text_encoder/model.safetensors")["shared.weight"]
    assert not torch.equal(state(trained)["text_encoder.shared.weight"], before)
    train("pocket-base-128", tmp_path, [*base(tiny_folder), "train_text_encoder=false"])
    assert not [name for name in state(tmp_path) if name.startswith("text_encoder")]
    exported = load_file(tmp_path / "export/text_encoder/model.safetensors")["shared.weight"]
    assert torch.equal(exported, before.bfloat16())


def test_the_larger_stage_starts_from_the_smaller_with_stretched_positions(
    trained: Path, tmp_path: Path
) -> None:
    start = trained / "export"
    overrides = [*MODEL, f"autoencoder={start}", f"text_encoder={start}", f"start={start}"]
    overrides += ["model.sample_size=8", "image_size=64", "run.steps=1", "optimizer.learning_rate=1e-12"]
    overrides += ["optimizer.matrix_learning_rate=1e-12"]
    train("pocket-256", tmp_path, overrides)
    larger, smaller = (
        load_transformer(tmp_path / "export/transformer"),
        load_transformer(start / "transformer"),
    )
    assert (larger.config.sample_size, larger.config.interpolation_scale) == (8, 0.5)
    for name, tensor in smaller.state_dict().items():
        torch.testing.assert_close(larger.state_dict()[name], tensor, atol=1e-6, rtol=1e-2)


def test_sizes_that_do_not_fit_are_recipe_errors(trained: Path, tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="image_size=32"):
        train("pocket-base-128", tmp_path / "a", [*base(tiny_folder), "image_size=64"])
    overrides = [*base(tiny_folder), f"start={trained / 'export'}", "model.num_layers=3"]
    with pytest.raises(RecipeError, match="num_layers=3"):
        train("pocket-base-128", tmp_path / "b", overrides)


def test_captions_are_drawn_short_dense_or_empty() -> None:
    indices = torch.arange(1000) % 10
    short_batches = 0
    for step in range(200):
        rows = draw_captions(indices, 10, 0.25, 0.1, keyed_generator(0, step, "captions"))
        empty = rows == 20
        assert 60 < int(empty.sum()) < 140
        kept = rows[~empty]
        assert torch.equal(kept % 10, indices[~empty])
        # All of a batch are of one kind.
        assert len({bool(short) for short in kept < 10}) == 1
        short_batches += bool(kept[0] < 10)
    assert 30 < short_batches < 70


def test_uniform_timesteps_are_spread_over_the_batch() -> None:
    timesteps = draw_timesteps(10, 1000, ObjectiveRecipe(), keyed_generator(0, 0, "noise"))
    assert (timesteps // 100).tolist() == list(range(10))


def test_logit_normal_timesteps_favour_the_middle() -> None:
    objective = ObjectiveRecipe(timesteps="logit-normal", timestep_std=0.5)
    timesteps = draw_timesteps(1000, 1000, objective, keyed_generator(0, 0, "noise"))
    assert int(timesteps.min()) >= 0
    assert int(timesteps.max()) <= 999
    # Two thirds lie within one deviation: sigmoid(±0.5) = 0.378, 0.622.
    assert 0.64 < float(((timesteps > 378) & (timesteps < 622)).float().mean()) < 0.72
