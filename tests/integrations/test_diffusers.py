"""The transformer inside diffusers' pipelines, against diffusers' own and against our pipeline."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from comparison import relative_error
from pixart_sigma.errors import InvalidInput, WeightsError
from pixart_sigma.model.config import TransformerConfig
from pixart_sigma.pipeline.text_to_image import TextToImage
from pixart_sigma.weights.transformer import load_transformer
from tiny_diffusers import (
    CONVOLVED,
    MICRO,
    PROMPTS,
    SEEDS,
    compressed,
    inputs,
    open_model,
    open_pipeline,
    predict,
    sampled,
    write_transformer,
)
from tiny_pipeline import TRANSFORMER

VARIANTS = {
    "plain": TRANSFORMER,
    "qk_norm": replace(TRANSFORMER, qk_norm=True),
    "conv": CONVOLVED,
    "conv without norm": compressed("conv", (1, 2), norm=False),
    "average": compressed("average", (3, 3)),
    "nearest": compressed("nearest", (2, 1)),
    "from more tokens": compressed("conv", from_tokens=17),
    "from fewer tokens": compressed("conv", from_tokens=16),
}


def ours(folder: Path, transformer: Path, height: int = 64, width: int = 64) -> torch.Tensor:
    model = TextToImage.from_pretrained(folder, transformer=load_transformer(transformer))
    result = model(PROMPTS, height=height, width=width, num_steps=4, seed=SEEDS[0], output="latents")
    return result.latents


@pytest.mark.parametrize("name", VARIANTS)
def test_sigmas_pipeline_makes_what_ours_makes(tiny_folder: Path, tmp_path: Path, name: str) -> None:
    folder = write_transformer(tmp_path, VARIANTS[name])
    expected = ours(tiny_folder, folder)
    assert relative_error(sampled(open_pipeline(tiny_folder, open_model(folder))), expected) <= 1e-5


def test_compression_is_not_left_out(tiny_folder: Path, tmp_path: Path) -> None:
    """What the test above would see, did the class not compress."""
    plain, average = (
        sampled(open_pipeline(tiny_folder, open_model(write_transformer(tmp_path / name, VARIANTS[name]))))
        for name in ("plain", "average")
    )
    assert relative_error(average, plain) > 1e-3


@pytest.mark.parametrize("guidance_scale", [1.0, 4.5])
def test_a_plain_model_makes_what_diffusers_makes(
    tiny_folder: Path, tmp_path: Path, guidance_scale: float
) -> None:
    from diffusers import PixArtTransformer2DModel

    folder = write_transformer(tmp_path, TRANSFORMER)
    options: dict[str, Any] = {"height": 48, "width": 80, "negative_prompt": "blurry and small"}
    theirs = open_pipeline(tiny_folder, PixArtTransformer2DModel.from_pretrained(folder))
    expected = sampled(theirs, guidance_scale=guidance_scale, **options)
    pipeline = open_pipeline(tiny_folder, open_model(folder))
    assert relative_error(sampled(pipeline, guidance_scale=guidance_scale, **options), expected) <= 1e-5


def test_alphas_pipeline_gives_micro_conditions(tiny_folder: Path, tmp_path: Path) -> None:
    from diffusers import PixArtTransformer2DModel

    folder = write_transformer(tmp_path, MICRO)
    theirs = open_pipeline(
        tiny_folder, PixArtTransformer2DModel.from_pretrained(folder), "PixArtAlphaPipeline"
    )
    pipeline = open_pipeline(tiny_folder, open_model(folder), "PixArtAlphaPipeline")
    latents = sampled(pipeline, height=48, width=96)
    assert relative_error(latents, sampled(theirs, height=48, width=96)) <= 1e-5
    assert relative_error(latents, ours(tiny_folder, folder, 48, 96)) <= 1e-5
    # Without them the picture is another one.
    theirs.transformer.adaln_single.emb.use_additional_conditions = False
    assert relative_error(latents, sampled(theirs, height=48, width=96)) > 1e-3


def test_a_model_without_micro_conditions_works_in_alphas_pipeline_at_its_size(
    tiny_folder: Path, tmp_path: Path
) -> None:
    folder = write_transformer(tmp_path, replace(MICRO, micro_conditioning=False))
    expected = sampled(open_pipeline(tiny_folder, open_model(folder)))
    latents = sampled(open_pipeline(tiny_folder, open_model(folder), "PixArtAlphaPipeline"))
    assert relative_error(latents, expected) <= 1e-6


def test_forward_takes_what_diffusers_class_takes(tmp_path: Path) -> None:
    model = open_model(write_transformer(tmp_path, TRANSFORMER))
    given = inputs()
    with torch.no_grad():
        expected = model(**given).sample
        assert torch.equal(model(**given, return_dict=False)[0], expected)
        for timestep in (torch.tensor(801), torch.tensor([801.0])):
            torch.testing.assert_close(model(**given | {"timestep": timestep}).sample, expected)
        given["encoder_hidden_states"] = given["encoder_hidden_states"][:, :5]
        given["encoder_attention_mask"] = torch.ones(2, 5)
        expected = model(**given).sample
        assert torch.equal(model(**given | {"encoder_attention_mask": None}).sample, expected)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"timestep": None}, "timestep are needed"),
        ({"encoder_hidden_states": None}, "encoder_hidden_states and"),
        ({"attention_mask": torch.ones(2, 24)}, "have no effect"),
        ({"cross_attention_kwargs": {"scale": 0.5}}, "set_adapters"),
        ({"encoder_attention_mask": torch.zeros(2, 1, 300)}, r"must be \(B, L, C\) and \(B, L\)"),
        ({"encoder_attention_mask": torch.zeros(2, 300)}, "no tokens"),
        ({"hidden_states": torch.zeros(2, 4, 7, 8)}, "patch size"),
    ],
)
def test_what_would_be_ignored_or_does_not_fit_is_refused(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    model = open_model(write_transformer(tmp_path, TRANSFORMER))
    with pytest.raises(InvalidInput, match=message):
        model(**inputs() | changed)


def test_a_model_with_micro_conditioning_in_sigmas_pipeline_is_refused(tmp_path: Path) -> None:
    model = open_model(write_transformer(tmp_path, MICRO))
    with pytest.raises(InvalidInput, match="needs image_size and aspect_ratio"):
        model(**inputs())


def test_random_discard_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="'discard' draws tokens at every step"):
        open_model(write_transformer(tmp_path, compressed("discard")))


def test_attention_processors_are_refused(tmp_path: Path) -> None:
    model = open_model(write_transformer(tmp_path, TRANSFORMER))
    for call in (
        lambda: model.attn_processors,
        lambda: model.set_attn_processor(None),
        lambda: model.set_attention_backend("native"),
        model.fuse_qkv_projections,
    ):
        with pytest.raises(InvalidInput, match="no attention processors"):
            call()


def test_the_defaults_are_those_of_diffusers_class() -> None:
    from diffusers import PixArtTransformer2DModel

    from pixart_sigma.integrations.diffusers import PixArtSigmaTransformer2DModel

    sizes: dict[str, Any] = {
        "num_layers": 1,
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "cross_attention_dim": 24,
        "caption_channels": 16,
    }
    for options in ({}, {"sample_size": 32}, {"use_additional_conditions": False}, {"out_channels": None}):
        model, theirs = (
            made(**sizes | options) for made in (PixArtSigmaTransformer2DModel, PixArtTransformer2DModel)
        )
        assert {name: p.shape for name, p in model.named_parameters()} == {
            name: p.shape for name, p in theirs.named_parameters()
        }
        theirs.load_state_dict(model.state_dict())
        given = inputs() | {
            "added_cond_kwargs": {
                "resolution": torch.tensor([[64.0, 96.0]] * 2),
                "aspect_ratio": torch.tensor([[64 / 96]] * 2),
            }
        }
        with torch.no_grad():
            assert relative_error(model(**given).sample, theirs(**given).sample) <= 1e-5


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"norm_type": "ada_norm_zero"}, "norm_type"),
        ({"caption_channels": None}, "caption_channels"),
        ({"kv_compression": {"window": [1, 1], "operator": "conv", "blocks": [0]}}, "compresses nothing"),
    ],
)
def test_what_is_no_pixart_model_is_refused(option: dict[str, Any], message: str) -> None:
    from pixart_sigma.integrations.diffusers import PixArtSigmaTransformer2DModel

    with pytest.raises(WeightsError, match=message):
        PixArtSigmaTransformer2DModel(**{"caption_channels": 16} | option)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(tmp_path: Path, dtype: torch.dtype) -> None:
    folder = write_transformer(tmp_path, CONVOLVED)
    model = open_model(folder, torch_dtype=dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {model.dtype} == {dtype}
    assert model(**inputs(dtype)).sample.dtype == dtype
    assert relative_error(predict(model, dtype), predict(open_model(folder))) < 0.05


def test_recomputed_activations_give_the_same_gradients(tmp_path: Path) -> None:
    model = open_model(write_transformer(tmp_path, CONVOLVED)).train()
    calls = []
    model.transformer_blocks[0].register_forward_pre_hook(lambda *_: calls.append(None))

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        model(**inputs()).sample.square().mean().backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    expected = gradients()
    assert len(calls) == 1
    model.enable_gradient_checkpointing()
    assert model.is_gradient_checkpointing
    assert all(map(torch.equal, gradients(), expected))
    assert len(calls) == 3  # once more, and once again on the way back


# Torch's compiler warns of its own doings, and takes a warning made an error for a failure to compile.
@pytest.mark.filterwarnings("ignore::UserWarning:torch", "ignore::DeprecationWarning:torch")
def test_compiled_blocks_predict_the_same(tmp_path: Path) -> None:
    model = open_model(write_transformer(tmp_path, CONVOLVED))
    expected = predict(model)
    model.compile_repeated_blocks(fullgraph=True, backend="aot_eager")
    assert relative_error(predict(model), expected) <= 1e-5


def test_every_parameter_learns(tmp_path: Path) -> None:
    config: TransformerConfig = replace(CONVOLVED, micro_conditioning=True)
    model = open_model(write_transformer(tmp_path, config))
    sizes = {"resolution": torch.tensor([[64.0, 96.0]]), "aspect_ratio": torch.tensor([[64 / 96]])}
    model(**inputs() | {"added_cond_kwargs": sizes}).sample.square().mean().backward()
    assert all(
        parameter.grad.any() for name, parameter in model.named_parameters() if "to_k.bias" not in name
    )
