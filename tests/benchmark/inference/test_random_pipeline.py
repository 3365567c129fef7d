import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pixart_sigma.benchmark.inference import random_pipeline
from pixart_sigma.benchmark.inference.random_pipeline import RandomPipeline, build_autoencoder
from pixart_sigma.benchmark.inference.scenarios import (
    PROMPT_TOKENS,
    SCENARIOS,
    TINY,
    choose,
    draw_inputs,
    prompts,
    with_fewer_text_layers,
)
from pixart_sigma.encoders.autoencoder import Autoencoder
from pixart_sigma.encoders.text import TextEncoder
from pixart_sigma.errors import InvalidInput
from pixart_sigma.training.plan.cost import num_elements, parameter_shapes
from pixart_sigma.weights.transformer import load_transformer

CPU = torch.device("cpu")


def test_the_real_shapes_are_those_of_the_released_models() -> None:
    shapes = SCENARIOS["pipeline"][1].shapes
    assert num_elements(parameter_shapes(shapes.transformer)) == 610_856_096
    assert shapes.text_encoder.num_parameters == 4_762_310_656
    with torch.device("meta"):
        autoencoder = build_autoencoder(shapes)
    assert sum(weight.numel() for weight in autoencoder.parameters()) == 83_653_863  # SDXL's
    assert autoencoder.config.scaling_factor == 0.13025
    assert autoencoder.config.block_out_channels == (128, 256, 512, 512)


def test_scenarios_are_chosen_by_name() -> None:
    assert [scenario.name for scenario in choose("transformer", [], "cpu")] == ["xl-256", "xl-512", "xl-1024"]
    assert choose("vae", ["tiny-encode"], "cpu")[0].work == "encode"
    with pytest.raises(
        InvalidInput, match="unknown scenario 'huge'; one of sigma-256, sigma-512, sigma-1024, tiny"
    ):
        choose("pipeline", ["huge"], "cpu")
    names = ["sigma-256", "sigma-512", "sigma-1024"]
    assert [scenario.name for scenario in choose("pipeline", [], "cuda")] == names
    assert [scenario.name for scenario in choose("pipeline", [], "cpu")] == names[:2]
    (largest,) = choose("pipeline", names[2:], "cpu")
    assert (largest.side, largest.latent_shape) == (1024, (1, 4, 128, 128))
    scenario = SCENARIOS["pipeline"][0]
    assert with_fewer_text_layers(scenario).shapes.text_encoder.num_layers == 6
    assert with_fewer_text_layers(scenario).shapes.transformer == scenario.shapes.transformer


def test_the_prompt_has_the_tokens_that_are_promised(tiny_weights: Callable[[str], Path]) -> None:
    assert len(set(prompts(64))) == 64
    tokens = TextEncoder.from_pretrained(tiny_weights("float32")).tokenize([*prompts(1), ""])
    assert [len(ids) for ids in tokens] == [PROMPT_TOKENS, 1]
    assert len(set(tokens[0])) == PROMPT_TOKENS  # none is unknown
    inputs = draw_inputs(TINY["transformer"][0])
    assert inputs.mask.sum(1).tolist() == [1, PROMPT_TOKENS]
    assert not inputs.embeds[~inputs.mask].any()


@pytest.mark.parametrize("shard_bytes", [2**30, 4096])
def test_every_part_loads_strictly_in_one_file_or_in_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard_bytes: int
) -> None:
    monkeypatch.setattr(random_pipeline, "SHARD_BYTES", shard_bytes)
    RandomPipeline(tmp_path, torch.bfloat16, CPU).provide(TINY["pipeline"][0])
    sharded = (tmp_path / "text_encoder" / "model.safetensors.index.json").is_file()
    assert sharded == (shard_bytes == 4096)
    models = (
        load_transformer(tmp_path / "transformer", torch.bfloat16),
        TextEncoder.from_pretrained(tmp_path, torch.bfloat16).model,
        Autoencoder.from_pretrained(tmp_path, torch.bfloat16).model,
    )
    assert {weight.dtype for model in models for weight in model.parameters()} == {torch.bfloat16}


def test_only_what_differs_is_written_again_and_weights_are_always_the_same(tmp_path: Path) -> None:
    (scenario,) = TINY["pipeline"]
    pipeline = RandomPipeline(tmp_path, torch.float32, CPU)
    pipeline.provide(scenario)
    first = load_file(tmp_path / "transformer" / "diffusion_pytorch_model.safetensors")
    vae = (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").stat()
    larger = replace(scenario.shapes.transformer, sample_size=16)
    pipeline.provide(replace(scenario, shapes=replace(scenario.shapes, transformer=larger)))
    assert json.loads((tmp_path / "transformer" / "config.json").read_text())["sample_size"] == 16
    again = load_file(tmp_path / "transformer" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").stat().st_ino == vae.st_ino
