import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from comparison import relative_error
from pixart_sigma.diffusion.sampling import Step
from pixart_sigma.errors import InvalidInput, MissingDependency, WeightsError
from pixart_sigma.model.config import TransformerConfig
from pixart_sigma.model.transformer import PixArtTransformer
from pixart_sigma.pipeline.compiler import check_compiler
from pixart_sigma.pipeline.images import to_image
from pixart_sigma.pipeline.kv_compression import KVCompressionRequest
from pixart_sigma.pipeline.noise import picture_generators, seeded_noise
from pixart_sigma.pipeline.request import Lora
from pixart_sigma.pipeline.shortcuts import Shortcuts
from pixart_sigma.pipeline.text_to_image import TextToImage
from pixart_sigma.weights.transformer import save_transformer
from tiny_lora import write_lora_file
from tiny_pipeline import TRANSFORMER, write_text_encoder

SMALL: dict[str, Any] = {"height": 64, "width": 48, "num_steps": 2}


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> TextToImage:
    return TextToImage.from_pretrained(tiny_folder)


def test_the_default_size_is_the_models_base(model: TextToImage) -> None:
    result = model("a red house", num_steps=1)
    assert result.images[0].size == (256, 256)
    assert result.latents.shape == (1, 4, 32, 32)


def test_a_size_is_honoured_as_given(model: TextToImage) -> None:
    (image,) = model("a red house", **SMALL).images
    assert (image.height, image.width, image.mode) == (64, 48, "RGB")


def test_the_same_seed_makes_the_same_picture(model: TextToImage) -> None:
    first = model("a red house", seed=3, **SMALL)
    assert first.images[0].tobytes() == model("a red house", seed=3, **SMALL).images[0].tobytes()
    assert first.images[0].tobytes() != model("a red house", seed=4, **SMALL).images[0].tobytes()


def test_a_picture_depends_on_its_seed_and_not_on_its_batch(model: TextToImage) -> None:
    together = model("a red house", seed=10, num_images=3, **SMALL)
    assert together.seeds == [10, 11, 12]
    for seed, latents in zip(together.seeds, together.latents, strict=True):
        alone = model("a red house", seed=seed, **SMALL)
        assert alone.seeds == [seed]
        assert relative_error(alone.latents[0], latents) <= 1e-5


@pytest.mark.parametrize("sampler", ["sa-solver", "euler"])
def test_what_a_sampler_draws_depends_on_the_seed_and_not_on_the_batch(
    model: TextToImage, sampler: str
) -> None:
    options = SMALL | {"num_steps": 6, "sampler": sampler, "output": "latents"}
    together = model("a red house", seed=10, num_images=2, **options).latents
    alone = model("a red house", seed=11, **options).latents
    assert relative_error(alone[0], together[1]) <= 1e-5


def test_noise_that_is_given_is_not_drawn_again_on_the_way(model: TextToImage) -> None:
    """The picture's own noise, given, makes the picture's own: what its generator draws next is the same."""
    options = SMALL | {"num_steps": 6, "sampler": "sa-solver", "output": "latents"}
    own = seeded_noise(picture_generators([3]), (4, 8, 6))
    assert torch.equal(
        model("a red house", seed=3, noise=own, **options).latents,
        model("a red house", seed=3, **options).latents,
    )


def test_pictures_of_several_prompts_are_ordered_by_prompt(model: TextToImage) -> None:
    prompts = ["a red house", "a small cactus with a happy face"]
    together = model(prompts, num_images=2, **SMALL)
    assert together.seeds == [0, 1, 2, 3]
    third = model(prompts[1], seed=2, **SMALL)
    assert relative_error(third.latents[0], together.latents[2]) <= 1e-5


def test_prompts_are_lower_cased_and_stripped(model: TextToImage) -> None:
    plain = model("a red house", **SMALL).latents
    assert torch.equal(model(" A Red HOUSE\n", **SMALL).latents, plain)


def test_steps_are_reported(model: TextToImage) -> None:
    reported: list[tuple[int, int]] = []
    model("a red house", on_step=lambda step: reported.append((step.done, step.total)), **SMALL)
    assert reported == [(1, 2), (2, 2)]


def test_a_step_can_stop_and_what_there_is_becomes_the_picture(model: TextToImage) -> None:
    seen = []

    def stop(step: Step) -> bool:
        seen.append(step.latents.clone())
        return step.done < 2

    options = SMALL | {"num_steps": 5}
    result = model("a red house", on_step=stop, **options)
    assert len(seen) == 2
    assert torch.equal(result.latents, seen[1])
    assert result.images[0].tobytes() == model.decode(seen[1])[0].tobytes()
    assert result.images[0].tobytes() != model("a red house", **options).images[0].tobytes()


def test_latents_alone_are_not_decoded(model: TextToImage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model.autoencoder, "decode", None)
    result = model("a red house", output="latents", **SMALL)
    assert result.images == []
    assert result.latents.shape == (1, 4, 8, 6)


def test_images_are_the_decoded_latents(model: TextToImage) -> None:
    result = model("a red house", **SMALL)
    with torch.no_grad():
        pixels = model.autoencoder.decode(result.latents)[0]
    assert result.images[0].tobytes() == to_image(pixels).tobytes()


def test_compression_averages_keys_and_values_in_the_deeper_half(model: TextToImage) -> None:
    plain = model("a red house", **SMALL).latents
    compressed = model("a red house", kv_compression=(2, 2), **SMALL).latents
    assert 1e-6 < relative_error(compressed, plain) < 0.5
    assert torch.equal(model("a red house", **SMALL).latents, plain)
    assert model.transformer.config == TRANSFORMER


def test_compression_takes_grids_that_the_window_does_not_divide(model: TextToImage) -> None:
    result = model("a red house", height=80, width=48, num_steps=1, kv_compression=(3, 2), output="latents")
    assert torch.isfinite(result.latents).all()


def test_v_prediction_comes_from_the_folder(tiny_folder: Path, tmp_path: Path, model: TextToImage) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "velocity"))
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prediction_type": "v_prediction"}))
    velocity = TextToImage.from_pretrained(folder)("a red house", **SMALL).latents
    assert relative_error(velocity, model("a red house", **SMALL).latents) > 1e-2


def test_micro_conditions_are_given_to_models_that_take_them(tiny_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "alpha"))
    config = TransformerConfig(**{**TRANSFORMER.__dict__, "micro_conditioning": True})
    save_transformer(PixArtTransformer(config), folder / "transformer")
    assert torch.isfinite(TextToImage.from_pretrained(folder)("a red house", **SMALL).latents).all()


def test_bfloat16_is_near_float32(tiny_folder: Path, model: TextToImage) -> None:
    rough = TextToImage.from_pretrained(tiny_folder, dtype="bfloat16")
    assert rough.transformer.proj_out.weight.dtype == torch.bfloat16
    result = rough("a red house", **SMALL)
    assert relative_error(result.latents.float(), model("a red house", **SMALL).latents) < 0.1


def test_bad_input_of_a_call_is_refused(model: TextToImage) -> None:
    with pytest.raises(InvalidInput, match="the prompt is empty"):
        model(" ")
    with pytest.raises(InvalidInput, match=r"noise \(1, 4, 8, 8\) does not fit; it must be \(1, 4, 8, 6\)"):
        model("a red house", noise=torch.randn(1, 4, 8, 8), **SMALL)
    with pytest.raises(InvalidInput, match="unknown output 'video'"):
        model("a red house", output="video", **SMALL)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="unknown dtype 'float64'"):
        TextToImage.from_pretrained("pocket", dtype="float64")
    with pytest.raises(InvalidInput, match="unknown profile 'mine'; one of diffusers, official"):
        TextToImage.from_pretrained("pocket", profile="mine")


def test_parts_that_do_not_fit_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "misfit"))
    shutil.rmtree(folder / "text_encoder")
    write_text_encoder(folder / "text_encoder", width=24)
    with pytest.raises(WeightsError, match="the text encoder's width is 24, the pipeline needs 16"):
        TextToImage.from_pretrained(folder)


def test_loras_are_merged_by_their_strengths(model: TextToImage, tiny_folder: Path, tmp_path: Path) -> None:
    first, second = (write_lora_file(tmp_path / f"{seed}.safetensors", seed) for seed in (0, 1))
    base = model.transformer.proj_out.weight

    def changed(*loras: Lora) -> torch.Tensor:
        return TextToImage.from_pretrained(tiny_folder, loras=loras).transformer.proj_out.weight

    assert torch.equal(changed(Lora(first, 0.0)), base)
    one, two = changed(Lora(first)) - base, changed(Lora(second)) - base
    assert relative_error(changed(Lora(first, 0.5), Lora(second, 2.0)) - base, 0.5 * one + 2 * two) <= 1e-5


def test_a_lora_is_merged_before_the_weights_are_rounded(tiny_folder: Path, tmp_path: Path) -> None:
    loras = [Lora(write_lora_file(tmp_path / "style.safetensors"), 0.1)]
    exact = TextToImage.from_pretrained(tiny_folder, loras=loras).transformer.proj_out.weight
    rounded = TextToImage.from_pretrained(tiny_folder, dtype="bfloat16", loras=loras).transformer
    assert {parameter.dtype for parameter in rounded.parameters()} == {torch.bfloat16}
    assert torch.equal(rounded.proj_out.weight, exact.bfloat16())


def test_a_lora_of_another_model_is_refused_before_the_text_encoder_is_read(
    tiny_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    other = replace(TRANSFORMER, out_channels=4)
    save_transformer(PixArtTransformer(other), folder / "transformer")
    shutil.rmtree(folder / "text_encoder")
    (folder / "text_encoder").mkdir()
    with pytest.raises(
        WeightsError, match=r"^LoRA .* does not fit the model; wrong shape: proj_out \[32, 24\] "
    ):
        TextToImage.from_pretrained(folder, loras=[Lora(write_lora_file(tmp_path / "style.safetensors"))])


def test_a_compiled_model_stays_so_with_compression(
    tiny_folder: Path, model: TextToImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a compiler that leaves everything as it is."""
    compiled: list[object] = []

    def compiler(function: object, **options: object) -> object:
        compiled.append(function)
        return function

    monkeypatch.setattr(torch, "compile", compiler)
    monkeypatch.setattr("pixart_sigma.pipeline.parts.check_compiler", lambda: None)
    found = TextToImage.from_pretrained(tiny_folder, compiled=True)
    assert len(compiled) == len(found.transformer.transformer_blocks)
    found("a red house", kv_compression=(2, 2), **SMALL)
    assert len(compiled) == 2 * len(found.transformer.transformer_blocks)
    with pytest.raises(
        InvalidInput, match=r"^compiled is for a transformer that is loaded, not for one that is"
    ):
        TextToImage.from_pretrained(tiny_folder, compiled=True, transformer=model.transformer)


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")  # by inductor itself
@pytest.mark.parametrize("window", [pytest.param(None, marks=pytest.mark.slow), (2, 2)])
def test_a_compiled_model_makes_the_same_pictures(
    window: tuple[int, int] | None, tiny_folder: Path, model: TextToImage
) -> None:
    try:
        check_compiler()
    except MissingDependency as error:
        pytest.skip(str(error))
    found = TextToImage.from_pretrained(tiny_folder, compiled=True)
    for height in (64, 96):
        options = SMALL | {"height": height, "kv_compression": window, "output": "latents"}
        assert (
            relative_error(found("a red house", **options).latents, model("a red house", **options).latents)
            <= 1e-5
        )


def test_what_cannot_be_is_refused_before_anything_is_encoded(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = TextToImage.from_pretrained(tiny_folder, autoencoder=None)

    def encode(*arguments: object) -> None:
        raise AssertionError("the text encoder ran")

    monkeypatch.setattr(found, "encode", encode)
    with pytest.raises(InvalidInput, match="the autoencoder was left out"):
        found("a red house", **SMALL)
    latents = SMALL | {"output": "latents"}
    with pytest.raises(InvalidInput, match="operator 'conv' needs weights"):
        found("a red house", kv_compression=KVCompressionRequest((2, 2), "conv"), **latents)
    found.transformer.transformer_blocks[0].forward = torch.compile(
        found.transformer.transformer_blocks[0].forward, backend="eager"
    )
    with pytest.raises(InvalidInput, match="outputs of blocks cannot be reused"):
        found("a red house", shortcuts=Shortcuts(reuse_blocks=2), **latents)
