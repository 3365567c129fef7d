"""Adapters as training exports them, in diffusers' hands; the reference is our merging of them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from comparison import relative_error
from pixart_sigma.errors import WeightsError
from pixart_sigma.pipeline.request import Lora
from pixart_sigma.pipeline.text_to_image import TextToImage
from pixart_sigma.training.adapters import inject, write_adapter
from pixart_sigma.training.recipe.transformer import LoraRecipe
from pixart_sigma.weights.lora import AdapterSettings, apply_loras, load_lora, save_adapter
from pixart_sigma.weights.transformer import load_transformer, save_transformer
from tiny_diffusers import (
    CONVOLVED,
    PROMPTS,
    SEEDS,
    inputs,
    open_model,
    open_pipeline,
    predict,
    random_model,
    sampled,
    write_transformer,
)
from tiny_lora import ALPHA, RANK, random_adapter
from tiny_pipeline import TRANSFORMER

LAYERS = (
    "proj_out",
    "transformer_blocks.0.attn1.to_q",
    "transformer_blocks.1.attn2.to_k",
    "transformer_blocks.2.attn2.to_v",
    "transformer_blocks.3.ff.net.0.proj",
    "adaln_single.emb.timestep_embedder.linear_1",
    "caption_projection.linear_2",
)


def write(folder: Path, dora: bool = False, seed: int = 0, layers: tuple[str, ...] = LAYERS) -> Path:
    tensors = {name: 0.2 * tensor for name, tensor in random_adapter(*layers, dora=dora, seed=seed).items()}
    save_adapter(folder, tensors, AdapterSettings(RANK, ALPHA, dora, layers))
    return folder


def merged(base: Path, scratch: Path, *adapters: tuple[Path, float]) -> Any:
    """The class over weights into which our code has merged the adapters."""
    transformer = load_transformer(base)
    apply_loras(transformer, [(load_lora(path), strength) for path, strength in adapters])
    save_transformer(transformer, scratch)
    return open_model(scratch)


@pytest.mark.parametrize("dora", [False, True])
def test_a_pipeline_with_an_adapter_makes_what_ours_makes(
    tiny_folder: Path, tmp_path: Path, dora: bool
) -> None:
    adapter = write(tmp_path / "adapter", dora)
    pipeline = open_pipeline(tiny_folder, open_model(tiny_folder / "transformer"))
    plain = sampled(pipeline)

    model = TextToImage.from_pretrained(tiny_folder, loras=[Lora(adapter, 1.0)])
    expected = model(PROMPTS, height=64, width=64, num_steps=4, seed=SEEDS[0], output="latents").latents
    assert relative_error(expected, plain) > 1e-2

    pipeline.transformer.load_lora_adapter(adapter, adapter_name="style")
    assert pipeline.transformer.active_adapters() == ["style"]
    assert relative_error(sampled(pipeline), expected) <= 1e-5
    pipeline.transformer.fuse_lora()
    assert relative_error(sampled(pipeline), expected) <= 1e-5
    pipeline.transformer.unfuse_lora()
    pipeline.transformer.disable_lora()
    assert relative_error(sampled(pipeline), plain) <= 1e-5
    pipeline.transformer.enable_lora()
    assert relative_error(sampled(pipeline), expected) <= 1e-5
    pipeline.transformer.unload_lora()
    assert relative_error(sampled(pipeline), plain) <= 1e-5
    assert not any("lora" in name for name in pipeline.transformer.state_dict())


@pytest.mark.filterwarnings(
    "ignore:Already found a `peft_config` attribute:UserWarning"
)  # peft, at a second one
def test_two_adapters_with_strengths(tmp_path: Path) -> None:
    base = write_transformer(tmp_path / "base", CONVOLVED)
    first = write(tmp_path / "first", seed=1)
    second = write(tmp_path / "second", seed=2, layers=LAYERS[1:4])
    model = open_model(base)
    model.load_lora_adapter(first, adapter_name="first")
    model.load_lora_adapter(str(second), adapter_name="second")
    for strengths in ([0.5, 0.25], [0.0, 1.0]):
        model.set_adapters(["first", "second"], weights=strengths)
        expected = merged(base, tmp_path / "merged", (first, strengths[0]), (second, strengths[1]))
        assert relative_error(predict(model), predict(expected)) <= 1e-5
    model.delete_adapters("first")
    assert relative_error(predict(model), predict(merged(base, tmp_path / "merged", (second, 1.0)))) <= 1e-5


@pytest.mark.parametrize("dora", [False, True])
def test_what_training_writes_is_what_it_trained(tmp_path: Path, dora: bool) -> None:
    trained = random_model(CONVOLVED)
    base = tmp_path / "base"
    save_transformer(trained, base)
    recipe = LoraRecipe(rank=2, alpha=3.0, dora=dora, base="fp32", targets=("to_k", "to_out.0", "linear"))
    inject(trained, recipe, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in trained.named_parameters():
            if "lora_B" in name:
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
        given = inputs()
        expected = trained(
            given["hidden_states"],
            trained.prepare_captions(given["encoder_hidden_states"], given["encoder_attention_mask"]),
            trained.prepare_timesteps(given["timestep"]),
        )
    write_adapter(tmp_path / "adapter", trained, recipe)
    model = open_model(base)
    model.load_lora_adapter(tmp_path / "adapter")
    assert relative_error(predict(model), expected) <= 1e-5


def test_peft_itself_merges_an_adapter(tmp_path: Path) -> None:
    """As the card of an exported adapter says."""
    from peft import PeftModel

    base, adapter = write_transformer(tmp_path / "base", CONVOLVED), write(tmp_path / "adapter")
    model = PeftModel.from_pretrained(open_model(base), adapter).merge_and_unload()
    assert relative_error(predict(model), predict(merged(base, tmp_path / "merged", (adapter, 1.0)))) <= 1e-5


def test_files_of_other_layouts(tmp_path: Path) -> None:
    """Older names, an alpha for each layer, different ranks, a prefix."""
    base = write_transformer(tmp_path / "base", TRANSFORMER)
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for layer, rank in (("proj_out", 2), ("transformer_blocks.1.attn1.to_v", 5)):
        outputs, inner = load_transformer(base).get_submodule(layer).weight.shape
        name = f"transformer.{layer}"
        tensors[f"{name}.lora.down.weight"] = 0.3 * torch.randn(rank, inner, generator=generator)
        tensors[f"{name}.lora.up.weight"] = 0.3 * torch.randn(outputs, rank, generator=generator)
        tensors[f"{name}.alpha"] = torch.tensor(float(rank + 1))
    file = tmp_path / "style.safetensors"
    save_file(tensors, file)
    model = open_model(base)
    model.load_lora_adapter(file)
    assert relative_error(predict(model), predict(merged(base, tmp_path / "merged", (file, 1.0)))) <= 1e-5


def test_an_adapter_made_here_is_trained_and_saved(tmp_path: Path) -> None:
    from peft import LoraConfig

    base = write_transformer(tmp_path / "base", CONVOLVED)
    model = open_model(base).requires_grad_(False)
    config = LoraConfig(r=2, lora_alpha=4, target_modules=["to_q", "attn2.to_k"], init_lora_weights=False)
    model.add_adapter(config, "style")
    model(**inputs()).sample.square().mean().backward()
    assert {
        name.rpartition(".style")[0][-6:] for name, p in model.named_parameters() if p.grad is not None
    } == {
        "lora_A",
        "lora_B",
    }
    model.save_lora_adapter(tmp_path / "diffusers", adapter_name="style")
    assert relative_error(predict(model), predict(open_model(base))) > 1e-3
    file = tmp_path / "diffusers/pytorch_lora_weights.safetensors"
    expected = predict(merged(base, tmp_path / "merged", (file, 1.0)))
    for source, options in ((file, {}), (tmp_path / "diffusers", {"prefix": None, "use_safetensors": True})):
        again = open_model(base)
        again.load_lora_adapter(source, **options)
        assert relative_error(predict(again), predict(model)) <= 1e-5
        assert relative_error(predict(again), expected) <= 1e-5


def test_a_file_that_is_no_adapter_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "style.safetensors"
    save_file({"a": torch.zeros(1)}, file)
    model = open_model(write_transformer(tmp_path / "base", TRANSFORMER))
    with pytest.raises(WeightsError, match="is no LoRA"):
        model.load_lora_adapter(file)


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    adapter = write(tmp_path / "adapter")
    narrow = replace(TRANSFORMER, attention_head_dim=6)
    model = open_model(write_transformer(tmp_path / "base", narrow))
    with pytest.raises(RuntimeError, match="size mismatch"):
        model.load_lora_adapter(adapter)
