"""Linear layers in 8 bits against those in floating point, within what rounding allows."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from comparison import relative_error
from peaks import peak_allocated
from pixart_sigma.errors import InvalidInput
from pixart_sigma.model import KVCompression, PixArtTransformer, TransformerConfig
from pixart_sigma.model import int8 as module
from pixart_sigma.model.int8 import Int8Linear, check_int8_device, int8_layers, quantise_linears
from pixart_sigma.model.int8_memory import (
    LINEAR_LAYERS,
    check_int8_width,
    is_in_8_bits,
    product_bytes,
    weight_bytes,
)


def tiny(**options) -> PixArtTransformer:
    torch.manual_seed(0)
    sizes = {"num_layers": 3, "num_attention_heads": 2, "attention_head_dim": 12, "caption_channels": 16}
    return PixArtTransformer(TransformerConfig(**(sizes | options))).eval()


def predicted(model: PixArtTransformer) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    embeds, latents = torch.randn(2, 9, 16, generator=generator), torch.randn(2, 4, 8, 6, generator=generator)
    with torch.no_grad():
        captions = model.prepare_captions(embeds, torch.arange(9) < torch.tensor([[9], [4]]))
        return model(latents, captions, model.prepare_timesteps(torch.tensor([600.0])))


@pytest.mark.parametrize("shape", [(5, 24), (2, 40, 24), (1, 24)])
@pytest.mark.parametrize("bias", [True, False])
def test_the_error_is_within_half_a_step_of_each_number(shape: tuple[int, ...], bias: bool) -> None:
    linear = nn.Linear(24, 16, bias=bias)
    rows = torch.randn(shape) * torch.rand(*shape[:-1], 1).mul(4).exp()  # rows of very different sizes
    weight = linear.weight.detach().double()
    with torch.no_grad():
        found, exact = Int8Linear(linear)(rows).double(), linear(rows).double()
    row_step = rows.double().abs().amax(-1, keepdim=True) / 127 / 2
    weight_step = weight.abs().amax(1) / 127 / 2
    inputs = 24
    bound = (
        rows.double().abs().sum(-1, keepdim=True) * weight_step
        + row_step * weight.abs().sum(1)
        + inputs * row_step * weight_step
    )
    error = (found - exact).abs()
    assert (error <= bound * (1 + 1e-4)).all()
    assert error.max() > 0
    # Rounding errors have either sign: a bound that was met only because it is loose would hide a wrong scale.
    assert error.pow(2).mean().sqrt() < 0.3 * bound.pow(2).mean().sqrt()


def test_whole_numbers_within_the_levels_are_multiplied_exactly() -> None:
    linear = nn.Linear(8, 8, bias=False)
    linear.weight.data = torch.randint(-126, 127, (8, 8)).float()
    rows = torch.randint(-126, 127, (40, 8)).float()
    linear.weight.data[:, 0], rows[:, 0] = 127.0, -127.0
    assert torch.equal(Int8Linear(linear)(rows), rows @ linear.weight.T)


def test_zeros_and_extremes_are_finite() -> None:
    linear = nn.Linear(8, 8)
    linear.weight.data[3] = 0
    rows = torch.zeros(3, 8)
    rows[1] = 1e30
    found = Int8Linear(linear)(rows)
    assert torch.equal(found[0], linear.bias)
    assert found.isfinite().all()
    assert torch.equal(found[:, 3], linear.bias[3].expand(3))


def test_many_rows_are_multiplied_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Int8Linear(nn.Linear(24, 16))
    rows = torch.randn(3, 50, 24)
    whole = layer(rows)
    monkeypatch.setattr(module, "MOST_ROWS", 64)
    assert torch.equal(layer(rows), whole)


def test_every_linear_layer_of_the_blocks_is_replaced_and_no_other() -> None:
    model = tiny(kv_compression=KVCompression((2, 2), "conv", (1,)))
    exact = predicted(model)
    known = {name for name, one in model.named_modules() if isinstance(one, nn.Linear) and "blocks" in name}
    assert known == {f"transformer_blocks.{block}.{name}" for block in range(3) for name in LINEAR_LAYERS}
    quantise_linears(model.transformer_blocks)
    assert set(int8_layers(model)) == known
    assert not isinstance(model.proj_out, Int8Linear)
    assert 1e-4 < relative_error(predicted(model), exact) < 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scales_keep_their_precision_when_the_model_is_cast(dtype: torch.dtype) -> None:
    model = tiny()
    quantise_linears(model.transformer_blocks)
    before = {name: (one.levels.clone(), one.scale_bits.clone()) for name, one in int8_layers(model).items()}
    model.to(dtype)
    for name, one in int8_layers(model).items():
        assert torch.equal(one.levels, before[name][0])
        assert torch.equal(one.scale_bits, before[name][1])
        assert one.bias.dtype == dtype
    assert predicted(model).dtype == dtype


def test_weights_take_what_is_said() -> None:
    model = tiny()
    expected = sum(
        weight_bytes(*one.shape) if is_in_8_bits(name) else 4 * one.numel()
        for name, one in model.state_dict().items()
    )
    assert expected < 0.6 * sum(one.numel() * 4 for one in model.parameters())
    quantise_linears(model.transformer_blocks)
    assert sum(one.numel() * one.itemsize for one in (*model.parameters(), *model.buffers())) == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_product_takes_no_more_than_is_said(dtype: torch.dtype) -> None:
    config = tiny().config
    block = tiny().transformer_blocks[0]
    for layer in (Int8Linear(block.ff.net[0].proj), Int8Linear(block.ff.net[2])):
        rows = torch.randn(4096, layer.in_features, dtype=dtype)
        with torch.no_grad():
            peak = peak_allocated(lambda layer=layer, rows=rows: layer.to(dtype)(rows))
        assert peak <= 1.01 * product_bytes(config, 4096)
    assert product_bytes(config, 10**6) == product_bytes(config, 4096) > product_bytes(config, 100)


def test_adapters_that_were_not_merged_are_refused() -> None:
    from peft import LoraConfig, inject_adapter_in_model

    model = tiny()
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["attn1.to_q"]), model)
    with pytest.raises(InvalidInput, match=r"block 0 has another at attn1\.to_q.*; merge adapters first"):
        quantise_linears(model.transformer_blocks)
    assert not int8_layers(model)


def test_what_is_in_8_bits_already_is_refused() -> None:
    model = tiny()
    quantise_linears(model.transformer_blocks)
    with pytest.raises(InvalidInput, match="and quantise once"):
        quantise_linears(model.transformer_blocks)


def test_sizes_that_are_not_aligned_are_refused() -> None:
    with pytest.raises(InvalidInput, match="multiples of 8, and this model has one of 12 to 16"):
        Int8Linear(nn.Linear(12, 16))


def test_a_device_without_whole_numbers_is_refused() -> None:
    check_int8_device(torch.device("cpu"))
    with pytest.raises(InvalidInput, match=r"from Turing on, not on mps:0; use --device cpu"):
        check_int8_device(torch.device("mps", 0))


def test_rocm_is_refused_and_an_nvidia_gpu_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 4))
    monkeypatch.setattr(torch.version, "hip", None)
    check_int8_device(torch.device("cuda", 0))
    monkeypatch.setattr(torch.version, "hip", "6.2")
    check_int8_device(torch.device("cpu"))
    with pytest.raises(
        InvalidInput, match=r"NVIDIA GPUs from Turing on, not on cuda:0 of ROCm; use --device cpu"
    ):
        check_int8_device(torch.device("cuda", 0))


def test_widths_are_judged_as_layers_are() -> None:
    for head_dim in range(2, 14, 2):
        config = TransformerConfig(num_layers=1, num_attention_heads=2, attention_head_dim=head_dim)
        refused = []
        for check in (
            lambda config=config: check_int8_width(config),
            lambda config=config: Int8Linear(nn.Linear(config.width, 4 * config.width)),
        ):
            try:
                check()
            except InvalidInput as error:
                refused.append(str(error))
        assert len(refused) == (0 if config.width % 8 == 0 else 2)


def test_what_it_takes_is_known_without_torch() -> None:
    code = "import sys, pixart_sigma.model.int8_memory; print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
    )
