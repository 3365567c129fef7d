import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from comparison import relative_error
from pixart_sigma.encoders.pretrained import load_strictly
from pixart_sigma.encoders.quantised_text import load_quantised
from pixart_sigma.encoders.text import TextEncoder
from pixart_sigma.encoders.text_holds import Quantisation
from pixart_sigma.errors import InvalidInput, MissingDependency, WeightsError
from tiny_pipeline import write_tokenizer
from tiny_t5 import t5_config, t5_weights, write_t5

IDS = torch.randint(2, 50, (2, 9), generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = t5_config()
    return write_t5(tmp_path_factory.mktemp("t5") / "t5", config, t5_weights(config, torch.float32))


def hidden(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).last_hidden_state


def resident(folder: Path) -> Any:
    from transformers.models.t5.modeling_t5 import T5EncoderModel

    return load_strictly(T5EncoderModel, folder, dtype=torch.float32)


def stored_weights(model: Any) -> dict[str, torch.Tensor]:
    """Of each quantised layer, what its bits stand for."""
    import bitsandbytes

    weights = {}
    for name, layer in model.named_modules():
        if isinstance(layer, bitsandbytes.nn.Linear4bit):
            weights[name] = bitsandbytes.functional.dequantize_4bit(
                layer.weight.data, layer.weight.quant_state
            )
        elif isinstance(layer, bitsandbytes.nn.Linear8bitLt):
            weights[name] = layer.weight.data * layer.weight.SCB[:, None] / 127
    return weights


# A step of 8 bits is 1/127 of a row's largest weight; a gap of nf4 is at most 0.3 of a block's largest.
@pytest.mark.parametrize(("quantisation", "largest_step"), [("int8", 1 / 127), ("nf4", 0.31)])
def test_the_weights_are_the_files_rounded_and_the_output_is_theirs(
    quantisation: Quantisation, largest_step: float, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exact = resident(folder)
    plain = hidden(exact)
    quantised = load_quantised(folder, quantisation, torch.float32)
    weights = stored_weights(quantised)  # before the first call, which may pack them anew
    # q, k, v, o, wi_0, wi_1 of three blocks; wo stays as it is.
    assert len(weights) == 18
    assert not any("wo" in name for name in weights)
    for name, weight in weights.items():
        original = exact.get_submodule(name).weight.data
        assert 0 < relative_error(weight.float(), original) <= largest_step / 2 + 0.01
        original.copy_(weight)
    ours = hidden(quantised)
    assert ours.dtype == torch.float32
    # bitsandbytes rounds what passes through as well: for int8 to 8 bits, for nf4 (on the CPU) to bf16.
    assert relative_error(ours, hidden(exact)) <= 0.1
    assert relative_error(ours, plain) > (0.3 if quantisation == "nf4" else 0.01)
    assert not caplog.records


@pytest.mark.parametrize("quantisation", ["int8", "nf4"])
def test_a_text_encoder_holds_it(quantisation: Quantisation, folder: Path, tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "tokenizer")
    (tmp_path / "text_encoder").symlink_to(folder)
    encoder = TextEncoder.from_pretrained(tmp_path, torch.bfloat16, held=quantisation).to("cpu")
    model, weight_bytes = encoder.model, encoder.weight_bytes
    with torch.no_grad():
        embeddings, mask = encoder.encode(["a red house", "a lake"])
    assert embeddings.shape == (2, 4, 64)
    assert mask.sum(1).tolist() == [4, 3]
    assert embeddings.dtype == torch.bfloat16
    assert not model.training
    weights = dict(resident(folder).named_parameters())
    assert model.get_memory_footprint() < 0.75 * 2 * sum(weight.numel() for weight in weights.values())
    expected = 0
    for name, weight in weights.items():
        if name.split(".")[-2] not in {"q", "k", "v", "o", "wi_0", "wi_1"}:
            expected += 2 * weight.numel()
        elif quantisation == "int8":
            expected += weight.numel()
        else:
            expected += weight.numel() // 2 + 4 * weight.numel() // 64  # a scale a block
    assert weight_bytes == expected


@pytest.mark.parametrize(
    ("quantisation", "package"),
    [("int8", "bitsandbytes"), ("nf4", "bitsandbytes"), ("int8", "accelerate"), ("torchao-int8", "torchao")],
)
def test_the_missing_package_is_named(
    quantisation: Quantisation, package: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        MissingDependency, match=rf"^a text encoder in {quantisation} needs the package {package}; [^\n]+$"
    ):
        load_quantised(folder, quantisation)


def test_widths_that_nf4_gets_wrong_are_refused(tmp_path: Path) -> None:
    config = t5_config(d_model=96)
    folder = write_t5(tmp_path / "t5", config, t5_weights(config, torch.float32))
    with pytest.raises(InvalidInput, match="multiples of 64, d_model is 96; use int8"):
        load_quantised(folder, "nf4")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({key: value for key, value in config.items() if key != "d_kv"})
    )
    with pytest.raises(WeightsError, match="it has no d_kv"):  # transformers would take 64
        load_quantised(folder, "nf4")
    (folder / "config.json").write_text(json.dumps(t5_config(num_heads=2).to_dict()))
    with pytest.raises(InvalidInput, match="multiples of 64, num_heads × d_kv is 32; use int8"):
        load_quantised(folder, "nf4")


def test_other_faults_are_one_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"^unknown quantisation 'int3'; one of int8, nf4, torchao-int8$"):
        load_quantised(folder, "int3")  # type: ignore[arg-type]
    for quantisation in ("int8", "nf4"):
        with pytest.raises(WeightsError, match=r"^[^\n]* has no (readable )?config\.json; [^\n]*$"):
            load_quantised(tmp_path, quantisation)
