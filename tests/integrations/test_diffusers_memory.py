"""Offloading, casting and quantisation by diffusers, as far as a CPU goes.

What is tested is that every weight is used within the call of the module that owns it: between calls it lies on the
meta device, on disk, or in a type that nothing can be computed in. That pictures need less memory on a GPU is not.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from comparison import relative_error
from tiny_diffusers import CONVOLVED, open_model, open_pipeline, predict, sampled, write_transformer

CPU = torch.device("cpu")
# bitsandbytes' 4-bit kernels for the CPU want rows of 64.
WIDE = replace(CONVOLVED, num_attention_heads=4, attention_head_dim=16, caption_channels=64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_transformer(tmp_path_factory.mktemp("transformer"), CONVOLVED)


@pytest.fixture(scope="module")
def expected(folder: Path) -> torch.Tensor:
    return predict(open_model(folder))


def test_weights_that_lie_on_the_meta_device_between_calls(folder: Path, expected: torch.Tensor) -> None:
    """accelerate's hooks, which `enable_sequential_cpu_offload` puts on every module."""
    from accelerate import cpu_offload

    model = open_model(folder)
    cpu_offload(model, CPU, offload_buffers=True)
    for _ in range(2):
        assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
        assert torch.equal(predict(model), expected)


def test_a_model_that_is_moved_as_a_whole(tiny_folder: Path, folder: Path) -> None:
    """`enable_model_cpu_offload`, here from the CPU to the CPU."""
    latents = sampled(open_pipeline(tiny_folder, open_model(folder)))
    pipeline = open_pipeline(tiny_folder, open_model(folder))
    pipeline.enable_model_cpu_offload(device="cpu")
    assert torch.equal(sampled(pipeline), latents)
    assert torch.equal(sampled(pipeline), latents)


@pytest.mark.parametrize("kind", ["block_level", "leaf_level"])
def test_groups_of_weights_that_lie_on_disk_between_calls(
    folder: Path, expected: torch.Tensor, tmp_path: Path, kind: str
) -> None:
    model = open_model(folder)
    groups: dict[str, Any] = {"num_blocks_per_group": 1} if kind == "block_level" else {}
    model.enable_group_offload(CPU, offload_type=kind, offload_to_disk_path=str(tmp_path), **groups)
    # What is offloaded is an empty tensor, which may hold the old values by chance.
    for parameter in model.transformer_blocks.parameters():
        parameter.data.fill_(float("nan"))
    for _ in range(2):
        assert torch.equal(predict(model), expected)


def test_group_offloading_takes_a_pipeline(tiny_folder: Path, folder: Path) -> None:
    latents = sampled(open_pipeline(tiny_folder, open_model(folder)))
    pipeline = open_pipeline(tiny_folder, open_model(folder))
    pipeline.enable_group_offload(CPU, offload_type="leaf_level")
    assert torch.equal(sampled(pipeline), latents)


@pytest.mark.filterwarnings(
    "ignore:The following device_map keys do not match:UserWarning"
)  # scale_shift_table
def test_a_device_map_splits_between_blocks(folder: Path, expected: torch.Tensor, tmp_path: Path) -> None:
    rest = ["scale_shift_table", "pos_embed", "adaln_single", "caption_projection", "proj_out"]
    places = dict.fromkeys([*rest, "transformer_blocks.0", "transformer_blocks.1"], "cpu")
    places |= dict.fromkeys(["transformer_blocks.2", "transformer_blocks.3"], "disk")
    model = open_model(folder, device_map=places, offload_folder=str(tmp_path))
    assert model.transformer_blocks[2].attn1.to_q.weight.device.type == "meta"
    assert torch.equal(predict(model), expected)
    assert torch.equal(predict(open_model(folder, device_map="auto")), expected)


def test_weights_stored_in_eight_bit_floats(folder: Path, expected: torch.Tensor) -> None:
    model = open_model(folder, torch_dtype=torch.bfloat16)
    model.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.bfloat16)
    kinds = {name: parameter.dtype for name, parameter in model.named_parameters()}
    assert kinds["transformer_blocks.1.attn1.kv_compression.conv.weight"] == torch.float8_e4m3fn
    assert kinds["caption_projection.linear_1.weight"] == torch.float8_e4m3fn
    for name in ("pos_embed.proj", "transformer_blocks.1.attn1.q_norm", "adaln_single.linear"):
        assert kinds[f"{name}.weight"] == torch.bfloat16
    assert relative_error(predict(model, torch.bfloat16), expected) < 0.2


QUANTISED: dict[str, dict[str, Any]] = {
    "8 bits": {"load_in_8bit": True},
    "4 bits": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.float16},
}


@pytest.mark.parametrize("bits", QUANTISED)
def test_bitsandbytes_quantises_all_linear_layers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: str
) -> None:
    """diffusers asks for a GPU here; the kernels compute on a CPU too, so it is not asked."""
    from diffusers import BitsAndBytesConfig
    from diffusers.quantizers.bitsandbytes import bnb_quantizer

    for kind in ("BnB4BitDiffusersQuantizer", "BnB8BitDiffusersQuantizer"):
        monkeypatch.setattr(getattr(bnb_quantizer, kind), "validate_environment", lambda *_, **__: None)
    folder = write_transformer(tmp_path / "full", WIDE)
    options: dict[str, Any] = {"torch_dtype": torch.float16, "device_map": {"": "cpu"}}
    model = open_model(folder, quantization_config=BitsAndBytesConfig(**QUANTISED[bits]), **options)
    linear = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    assert linear
    assert not {module.weight.dtype for module in linear} & {torch.float32, torch.float16}
    model.save_pretrained(tmp_path / "quantised")  # beforehand: on a CPU a call packs 4 bits in another way
    prediction = predict(model, torch.float16, WIDE.caption_channels)
    error = relative_error(prediction, predict(open_model(folder), channels=WIDE.caption_channels))
    assert 0 < error < 0.5

    again = open_model(tmp_path / "quantised", **options)
    assert relative_error(predict(again, torch.float16, WIDE.caption_channels), prediction) == 0
