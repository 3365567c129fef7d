import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from comparison import relative_error
from pixart_sigma.data.table import Table
from pixart_sigma.errors import InvalidInput, RecipeError, WeightsError
from pixart_sigma.pipeline.text_to_image import TextToImage
from pixart_sigma.training.recipe.data import SourceRecipe
from pixart_sigma.training.run import train
from pixart_sigma.training.watching.metrics import read_metrics
from pixart_sigma.weights.folder import caption_length, find_pipeline
from pixart_sigma.weights.transformer import load_transformer
from tiny_run import FRESH, newest, overrides, recipe_file, stored

NEARLY_STILL = {"optimizer.learning_rate": 1e-12, "run.steps": 1, "run.checkpoint_every": 1}


def fresh(tiny: Path) -> dict[str, Any]:
    return FRESH | {"scratch.autoencoder": str(tiny), "scratch.text_encoder": str(tiny)}


def started(model: Path, **start: Any) -> dict[str, Any]:
    chosen = {"resolution": 32} | start
    return {"start.model": str(model)} | {f"start.{name}": value for name, value in chosen.items()}


@pytest.fixture(scope="module")
def trained(tiny_folder: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run from scratch; read only."""
    output = tmp_path_factory.mktemp("base")
    train(recipe_file(output, pictures, fresh(tiny_folder) | {"export.dtype": "fp32"}), output)
    return output


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


def test_the_run_leaves_everything_that_is_promised(trained: Path) -> None:
    for name in (
        "recipe.toml",
        "metrics.jsonl",
        "report.html",
        "samples/step-00000004.png",
        "export/README.md",
    ):
        assert (trained / name).exists(), name
    exported = load_file(trained / "export/transformer/diffusion_pytorch_model.safetensors")
    held = stored(trained)
    for name, tensor in exported.items():
        assert torch.equal(tensor, held[f"average.transformer.{name}"]), name


def test_the_last_weights_are_exported_if_asked(tiny_folder: Path, pictures: Path, tmp_path: Path) -> None:
    settings = fresh(tiny_folder) | {"export.weights": "last"}
    train(recipe_file(tmp_path, pictures, settings), tmp_path)
    exported = load_file(tmp_path / "export/transformer/diffusion_pytorch_model.safetensors")
    held = stored(tmp_path)
    for name, tensor in exported.items():
        assert torch.equal(tensor, held[f"weights.transformer.{name}"].bfloat16()), name


def test_an_ancestors_share_is_blended_into_the_export(
    trained: Path, tiny_folder: Path, pictures: Path, tmp_path: Path
) -> None:
    """Compression is this run's own; all else lies between the two."""
    compression = {"window": [2, 2], "blocks": "all"}
    ancestor = trained / "export"
    settings = started(ancestor, kv_compression=compression) | {"run.steps": 1, "export.dtype": "fp32"}
    blend = {"export.blend": {"model": str(ancestor), "share": 0.25}}
    train(recipe_file(tmp_path, pictures, settings | blend), tmp_path)
    weights = ancestor / "transformer/diffusion_pytorch_model.safetensors"
    theirs, held = load_file(weights), stored(tmp_path)
    exported = load_file(tmp_path / "export/transformer/diffusion_pytorch_model.safetensors")
    assert len(exported) > len(theirs)
    for name, tensor in exported.items():
        ours = held[f"average.transformer.{name}"]
        expected = 0.25 * theirs[name] + 0.75 * ours if name in theirs else ours
        torch.testing.assert_close(tensor, expected)
    card = (tmp_path / "export/README.md").read_text()
    assert "25% of the weights are those of `export`" in card

    other = {"export.blend": {"model": str(tiny_folder)}}
    with pytest.raises(WeightsError, match="name one of its ancestors"):
        train(recipe_file(tmp_path, pictures, started(ancestor) | other), tmp_path / "other")


def test_a_cut_run_resumes_bit_for_bit(trained: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(trained, cut)
    shutil.rmtree(cut / "checkpoints/step-00000004")
    train(str(cut / "recipe.toml"), cut, resume=True)
    whole, resumed = stored(trained), stored(cut)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    picture = "samples/step-00000004.png"
    assert (cut / picture).read_bytes() == (trained / picture).read_bytes()


def test_a_changed_recipe_is_refused_on_resuming_unless_allowed(trained: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(trained, cut)
    shutil.rmtree(cut / "checkpoints/step-00000004")
    change = ["optimizer.learning_rate=0.5"]
    with pytest.raises(RecipeError, match=r"learning_rate: 0\.001 → 0\.5.*--allow-changed"):
        train(str(trained / "recipe.toml"), cut, change, resume=True)
    train(str(trained / "recipe.toml"), cut, change, resume=True, allow_changed=True)
    assert newest(cut).name == "step-00000004"


@pytest.mark.parametrize("feature", ["latents", "embeddings"])
def test_cached_and_online_features_train_alike(
    feature: str, trained: Path, tiny_folder: Path, pictures: Path, tmp_path: Path
) -> None:
    settings = fresh(tiny_folder) | {f"data.{feature}": "online"}
    train(recipe_file(tmp_path, pictures, settings), tmp_path)
    columns = Table.open(tmp_path / "tables/00-folder.lance").columns
    assert not [name for name in columns if name.startswith(feature)]

    def losses(output: Path) -> list[float]:
        return [line["loss"] for line in read_metrics(output / "metrics.jsonl") if "loss" in line]

    # Cached features are rounded to half precision.
    assert losses(tmp_path) == pytest.approx(losses(trained), rel=2e-2)
    one, other = stored(tmp_path), stored(trained)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_the_text_encoder_learns_along_or_is_frozen(
    trained: Path, tiny_folder: Path, pictures: Path, tmp_path: Path
) -> None:
    before = load_file(tiny_folder / "text_encoder/model.safetensors")["shared.weight"]
    frozen = load_file(trained / "export/text_encoder/model.safetensors")["shared.weight"]
    assert torch.equal(frozen, before)
    settings = fresh(tiny_folder) | {"train_text_encoder": True, "data.embeddings": "online"}
    train(recipe_file(tmp_path, pictures, settings), tmp_path)
    learnt = load_file(tmp_path / "export/text_encoder/model.safetensors")["shared.weight"]
    assert not torch.equal(learnt, before.bfloat16())
    assert torch.equal(learnt, stored(tmp_path)["average.text_encoder.shared.weight"].bfloat16())


@pytest.mark.parametrize("learns", [False, True])
def test_another_text_encoder_takes_its_place(
    tiny_folder: Path, pictures: Path, tmp_path: Path, learns: bool
) -> None:
    other = tmp_path / "other"
    for part in ("text_encoder", "tokenizer"):
        shutil.copytree(tiny_folder / part, other / part)
    file = other / "text_encoder/model.safetensors"
    weights = {name: weight * 1.5 for name, weight in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})
    # What is replaced need not be there.
    model = tmp_path / "model"
    shutil.copytree(tiny_folder, model, ignore=shutil.ignore_patterns("text_encoder", "tokenizer"))
    settings = started(model) | {
        "start.text_encoder": str(other),
        "train_text_encoder": learns,
        "data.embeddings": "online" if learns else "cached",
    }
    train(recipe_file(tmp_path, pictures, settings), tmp_path)
    exported = load_file(tmp_path / "export/text_encoder/model.safetensors")["shared.weight"].float()
    torch.testing.assert_close(exported, weights["shared.weight"].float(), atol=0.02, rtol=0.01)
    log = (tmp_path / "surgery.jsonl").read_text("utf-8")
    assert '"that of other"' in log
    assert '"null_caption"' in log


def test_a_text_encoder_of_another_width_is_refused(
    tiny_folder: Path, pictures: Path, tmp_path: Path
) -> None:
    settings = started(tiny_folder) | {"start.text_encoder": "pocket"}
    with pytest.raises(WeightsError, match="the text encoder's width is 192, the transformer takes"):
        train(recipe_file(tmp_path, pictures, settings), tmp_path)


def test_all_buckets_of_a_base_are_trained_on(tiny_folder: Path, tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, size in enumerate([(300, 300), (300, 300), (600, 300), (600, 300), (1400, 300)]):
        Image.new("RGB", size, (index * 40, 0, 0)).save(folder / f"{index}.png")
    settings = started(tiny_folder, resolution=None) | {
        "data.buckets": "aspect",
        "data.sources": [{"folder": str(folder), "caption": "a red house"}],
        "run.batch_size": 2,
    }
    train(recipe_file(tmp_path, folder, settings), tmp_path)
    table = Table.open(tmp_path / "tables/00-folder.lance")
    (name,) = [column for column in table.columns if column.startswith("latents_256_")]
    shapes = {(value["height"], value["width"]) for value in table.read([name])[name].to_pylist()}
    assert {(32, 32), (22, 44)} <= shapes


def test_sources_have_resolutions_of_their_own(tiny_folder: Path, pictures: Path, tmp_path: Path) -> None:
    """A batch has one size, and an epoch those of all sources; drawn scenes are drawn at theirs."""
    settings = started(tiny_folder) | {
        "data.sources": [
            {"folder": str(pictures), "resolution": 64},
            {"drawn": {"num_scenes": 2}, "resolution": 96},
        ],
        "data.partial_batches": "wrap",
    }
    train(recipe_file(tmp_path, pictures, settings), tmp_path)
    for name, side in {"00-folder": 64, "01-drawn": 96}.items():
        table = Table.open(tmp_path / f"tables/{name}.lance")
        (column,) = [name for name in table.columns if name.startswith(f"latents_{side}square_")]
        shapes = {(value["height"], value["width"]) for value in table.read([column])[column].to_pylist()}
        assert shapes == {(side // 8, side // 8)}
    assert table.read(["height"])["height"].to_pylist() == [96, 96]


def test_a_sources_resolution_fits_the_buckets(pictures: Path) -> None:
    source = {"folder": str(pictures), "resolution": 100}
    with pytest.raises(ValueError, match="resolution 100 is not a multiple of 16"):
        SourceRecipe.model_validate(source)


@pytest.mark.parametrize(
    "change",
    [
        {"objective.prediction_type": "v_prediction"},
        {"objective.min_snr_gamma": 5.0},
        {"objective.x0_below": 250},
        {"objective.timesteps": "logit-normal"},
        {"captions.null_mask": "caption", "captions.dropout": 0.5},
        {"optimizer.kind": "came"},
        {"parallel.activation_checkpointing": "full"},
        {"scratch.kv_compression": {"window": [2, 1], "operator": "discard"}},
        {"scratch.learned_variance": False},
        {"run.precision": "bf16", "run.accumulate": 2},
        {"data.partial_batches": "wrap", "run.batch_size": 12},
    ],
    ids=lambda change: " ".join(change),
)
def test_every_way_of_training_runs_and_exports(
    change: dict[str, Any], tiny_folder: Path, pictures: Path, tmp_path: Path
) -> None:
    settings = fresh(tiny_folder) | {"run.steps": 2} | change
    train(recipe_file(tmp_path, pictures, settings), tmp_path)
    found = [line["loss"] for line in read_metrics(tmp_path / "metrics.jsonl") if "loss" in line]
    assert len(found) == 2
    assert all(0 < loss < 10 for loss in found)
    TextToImage.from_pretrained(tmp_path / "export")("a red house", height=32, width=32, num_steps=1)


def surgery(output: Path) -> dict[str, str]:
    lines = (output / "surgery.jsonl").read_text("utf-8").splitlines()
    return {change["name"]: change["action"] for change in map(json.loads, lines)}


def test_a_larger_resolution_stretches_positions_and_keeps_every_weight(
    trained: Path, pictures: Path, tmp_path: Path
) -> None:
    settings = started(trained / "export", resolution=64) | NEARLY_STILL | {"export.dtype": "fp32"}
    train(recipe_file(tmp_path, pictures, settings), tmp_path)
    larger = load_transformer(tmp_path / "export/transformer")
    smaller = load_transformer(trained / "export/transformer")
    assert (larger.config.sample_size, larger.config.interpolation_scale) == (8, 0.125)
    for name, tensor in smaller.state_dict().items():
        torch.testing.assert_close(larger.state_dict()[name], tensor, atol=1e-6, rtol=1e-4)
    actions = surgery(tmp_path)
    assert {actions[name] for name in smaller.state_dict()} == {"kept"}


def test_compression_is_added_and_our_pipeline_opens_it(
    trained: Path, pictures: Path, tmp_path: Path
) -> None:
    compression = {"window": [2, 2], "blocks": "deep"}
    settings = started(trained / "export", kv_compression=compression) | {"run.steps": 1}
    train(recipe_file(tmp_path, pictures, settings), tmp_path)
    actions = surgery(tmp_path)
    made = [name for name, action in actions.items() if action == "made"]
    assert made
    assert all(".attn1.kv_compression." in name for name in made)
    model = TextToImage.from_pretrained(tmp_path / "export")
    assert model.transformer.config.kv_compression is not None
    # diffusers' own class would load this folder wrongly; so it is not named.
    entry = json.loads((tmp_path / "export/model_index.json").read_text())["transformer"]
    assert entry == ["pixart_sigma.integrations.diffusers", "PixArtSigmaTransformer2DModel"]


def test_another_autoencoder_has_its_latents_measured_and_its_scale_recorded(
    trained: Path, tiny_folder: Path, pictures: Path, tmp_path: Path
) -> None:
    settings = started(trained / "export", vae=str(tiny_folder)) | {"run.steps": 1}
    train(recipe_file(tmp_path, pictures, settings), tmp_path)
    scaling = json.loads((tmp_path / "latent_scaling.json").read_text())
    assert scaling["config_scaling_factor"] == 0.5
    assert scaling["statistics"]["num_images"] == 8
    exported = json.loads((tmp_path / "export/vae/config.json").read_text())["scaling_factor"]
    assert exported == scaling["scaling_factor"] == pytest.approx(scaling["statistics"]["scaling_factor"])
    assert surgery(tmp_path)["vae.scaling_factor"] == "configured"


def test_caption_length_and_qk_norm_are_declared_too(trained: Path, pictures: Path, tmp_path: Path) -> None:
    settings = started(trained / "export", caption_length=5, qk_norm=True) | {"run.steps": 1}
    settings |= {"captions.null_mask": "caption", "captions.dropout": 1.0}
    train(recipe_file(tmp_path, pictures, settings), tmp_path)
    actions = surgery(tmp_path)
    assert actions["null_caption"] == "made"
    assert actions["transformer_blocks.0.attn1.q_norm.weight"] == "made"
    (name,) = [
        column
        for column in Table.open(tmp_path / "tables/00-folder.lance").columns
        if column.startswith("embeddings")
    ]
    assert name.startswith("embeddings_5_")
    assert caption_length(find_pipeline(tmp_path / "export")) == 5


def test_dreambooth_makes_its_class_images_and_trains_on_them(
    tiny_folder: Path, pictures: Path, tmp_path: Path
) -> None:
    settings = started(tiny_folder) | {
        "data.sources": [{"folder": str(pictures), "caption": "a red house", "repeats": 2}],
        "data.class_images": {"prompt": "a house", "num": 3, "num_steps": 1},
        "lora.rank": 2,
    }
    train(recipe_file(tmp_path, pictures, settings), tmp_path)
    assert len(list(tmp_path.glob("class-images-*/*.png"))) == 3
    assert (tmp_path / "export/adapter_model.safetensors").exists()


def refused(tmp_path: Path, pictures: Path, settings: dict[str, Any], error: type[Exception]) -> str:
    with pytest.raises(error) as caught:
        train(recipe_file(tmp_path, pictures, settings), tmp_path / "out")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_bad_input_is_one_line(tiny_folder: Path, pictures: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    settings = fresh(tiny_folder)
    assert "empty dataset" in refused(tmp_path, empty, settings, InvalidInput)
    mix = settings | {"captions.mix": {"dense": 1.0}}
    assert "captions.mix asks for dense, the records have text" in refused(
        tmp_path, pictures, mix, InvalidInput
    )
    small = settings | {"run.batch_size": 16}
    assert "make no whole batch of 16" in refused(tmp_path, pictures, small, InvalidInput)
    wrong = started(tiny_folder) | {"objective.prediction_type": "v_prediction"}
    assert "predicts epsilon" in refused(tmp_path, pictures, wrong, RecipeError)
    nowhere = started(tmp_path / "nowhere")
    assert "unknown model" in refused(tmp_path, pictures, nowhere, InvalidInput)
    partial = started(tmp_path / "partial")
    shutil.copytree(tiny_folder, tmp_path / "partial", ignore=shutil.ignore_patterns("vae"))
    assert "partial lacks vae;" in refused(tmp_path, pictures, partial, WeightsError)
    no_bucket = started(tiny_folder, resolution=None) | {"data.buckets": "aspect", "start.resolution": 128}
    assert "base 128 has no aspect-ratio buckets" in refused(tmp_path, pictures, no_bucket, RecipeError)


def test_missing_captions_are_an_error(tiny_folder: Path, pictures: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(pictures, bare)
    for path in bare.glob("*.txt"):
        path.unlink()
    message = refused(tmp_path, bare, fresh(tiny_folder), InvalidInput)
    assert "empty dataset" in message
    assert "no caption" in (tmp_path / "out/tables/00-folder.skipped.jsonl").read_text()


def test_corrupt_pictures_are_counted_and_limited(tiny_folder: Path, pictures: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(pictures, broken)
    (broken / "03.png").write_bytes((pictures / "03.png").read_bytes()[:60])
    message = refused(tmp_path, broken, fresh(tiny_folder), InvalidInput)
    assert "1 of 8 pictures are corrupt" in message
    settings = fresh(tiny_folder) | {"data.max_corrupt": 0.2}
    train(recipe_file(tmp_path, broken, settings), tmp_path / "more")
    assert "03.png" in (tmp_path / "more/tables/00-folder.skipped.jsonl").read_text()


def test_the_command_takes_the_same_overrides(trained: Path, tmp_path: Path) -> None:
    train(str(trained / "recipe.toml"), tmp_path, overrides({"run.steps": 1}))
    assert newest(tmp_path).name == "step-00000001"
