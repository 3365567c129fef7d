import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from comparison import relative_error
from pixart_sigma.errors import InvalidInput, WeightsError
from pixart_sigma.model.transformer import PixArtTransformer
from pixart_sigma.weights.folder import ADAPTER_CONFIG_FILE, ADAPTER_FILE
from pixart_sigma.weights.lora import (
    METADATA_KEY,
    Adapter,
    AdapterSettings,
    apply_lora,
    apply_loras,
    load_lora,
    save_adapter,
    updates_from,
)
from tiny_lora import ALPHA, RANK, random_adapter
from tiny_pipeline import TRANSFORMER

LAYERS = ("transformer_blocks.0.attn1.to_q", "transformer_blocks.3.ff.net.2")
SETTINGS = AdapterSettings(RANK, ALPHA, dora=False, targets=("to_q", "ff.net.2"), base_model="tiny")


@pytest.fixture
def model() -> PixArtTransformer:
    return PixArtTransformer(TRANSFORMER)


def weights_of(model: PixArtTransformer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("strength", [1.0, 0.3, -2.0])
def test_the_adapted_weights_change_by_the_formula_and_no_others(
    model: PixArtTransformer, strength: float, tmp_path: Path
) -> None:
    tensors = random_adapter(*LAYERS)
    save_adapter(tmp_path, tensors, SETTINGS)
    before = weights_of(model)
    apply_lora(model, load_lora(tmp_path), strength)
    for name, tensor in model.state_dict().items():
        layer = name.removesuffix(".weight")
        if layer in LAYERS:
            product = tensors[f"{layer}.lora_B.weight"] @ tensors[f"{layer}.lora_A.weight"]
            expected = before[name] + strength * ALPHA / RANK * product
            assert relative_error(tensor, expected) <= 1e-6
        else:
            assert torch.equal(tensor, before[name])


def test_dora_scales_the_rows_to_its_magnitude(model: PixArtTransformer) -> None:
    tensors = random_adapter(*LAYERS, dora=True)
    apply_lora(model, Adapter(updates_from(tensors, ALPHA, "test"), "test"))
    for layer in LAYERS:
        rows = model.get_submodule(layer).weight.norm(dim=1)
        assert relative_error(rows, tensors[f"{layer}.lora_magnitude_vector"]) <= 1e-6


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_strength_0_changes_no_bit(model: PixArtTransformer, dora: bool, dtype: torch.dtype) -> None:
    model.to(dtype)
    before = weights_of(model)
    adapter = Adapter(updates_from(random_adapter(*LAYERS, dora=dora), ALPHA, "test"), "test")
    apply_lora(model, adapter, 0.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_half_the_strength_is_half_the_way_with_dora_too(model: PixArtTransformer) -> None:
    adapter = Adapter(updates_from(random_adapter(LAYERS[0], dora=True), ALPHA, "test"), "test")
    weight = model.get_submodule(LAYERS[0]).weight
    base = weight.detach().clone()
    apply_lora(model, adapter)
    whole = weight.detach().clone()
    with torch.no_grad():
        weight.copy_(base)
    apply_lora(model, adapter, 0.5)
    assert relative_error(weight, (base + whole) / 2) <= 1e-6


def test_several_add_up_in_any_order(model: PixArtTransformer) -> None:
    first = Adapter(updates_from(random_adapter(*LAYERS, dora=True), ALPHA, "a"), "a")
    second = Adapter(updates_from(random_adapter(LAYERS[0], seed=1), None, "b"), "b")
    base = weights_of(model)
    changes = []
    for adapter, strength in ((first, 0.7), (second, 1.5)):
        apply_lora(model, adapter, strength)
        changes.append({name: tensor - base[name] for name, tensor in model.state_dict().items()})
        model.load_state_dict(base)
    for adapters in ([(first, 0.7), (second, 1.5)], [(second, 1.5), (first, 0.7)]):
        apply_loras(model, adapters)
        for name, tensor in model.state_dict().items():
            expected = base[name] + changes[0][name] + changes[1][name]
            assert torch.allclose(tensor, expected, rtol=0, atol=1e-5)
        model.load_state_dict(base)


def test_the_folder_and_its_file_alone_say_the_same(model: PixArtTransformer, tmp_path: Path) -> None:
    tensors = random_adapter(*LAYERS, dora=True)
    save_adapter(tmp_path / "new" / "folder", tensors, AdapterSettings(RANK, ALPHA, True, ("to_q",)))
    folder = load_lora(tmp_path / "new" / "folder")
    alone = load_lora((tmp_path / "new" / "folder" / ADAPTER_FILE).rename(tmp_path / "style.safetensors"))
    assert folder.updates.keys() == alone.updates.keys() == set(LAYERS)
    for layer in LAYERS:
        for update in (folder.updates[layer], alone.updates[layer]):
            assert update.scale == ALPHA / RANK
            assert torch.equal(update.down, tensors[f"{layer}.lora_A.weight"])
            assert torch.equal(update.up, tensors[f"{layer}.lora_B.weight"])
            assert update.magnitude is not None
            assert torch.equal(update.magnitude, tensors[f"{layer}.lora_magnitude_vector"])


def test_a_file_that_has_only_peft_s_configuration_beside_it(
    model: PixArtTransformer, tmp_path: Path
) -> None:
    save_adapter(tmp_path, random_adapter(*LAYERS), SETTINGS)
    save_file(load_file(tmp_path / ADAPTER_FILE), tmp_path / ADAPTER_FILE)
    assert load_lora(tmp_path).updates[LAYERS[0]].scale == ALPHA / RANK
    (tmp_path / ADAPTER_CONFIG_FILE).unlink()
    with pytest.raises(
        WeightsError, match=r"does not say its alpha, which peft keeps in adapter_config\.json"
    ):
        load_lora(tmp_path)


@pytest.mark.parametrize("prefix", ["", "transformer."])
@pytest.mark.parametrize(("down", "up"), [("lora_A", "lora_B"), ("lora.down", "lora.up")])
@pytest.mark.parametrize("alpha", [None, 1.5])
def test_diffusers_names(
    model: PixArtTransformer, prefix: str, down: str, up: str, alpha: float | None, tmp_path: Path
) -> None:
    tensors = random_adapter(*LAYERS)
    renamed = {
        prefix + name.replace("lora_A", down).replace("lora_B", up): tensor
        for name, tensor in tensors.items()
    }
    if alpha is not None:
        renamed |= {f"{prefix}{layer}.alpha": torch.tensor(alpha) for layer in LAYERS}
    save_file(renamed, tmp_path / "style.safetensors")
    adapter = load_lora(tmp_path / "style.safetensors")
    assert adapter.updates.keys() == set(LAYERS)
    for layer, update in adapter.updates.items():
        assert update.scale == (1.0 if alpha is None else alpha / RANK)
        assert torch.equal(update.down, tensors[f"{layer}.lora_A.weight"])
        assert torch.equal(update.up, tensors[f"{layer}.lora_B.weight"])


def test_diffusers_metadata(model: PixArtTransformer, tmp_path: Path) -> None:
    metadata = {METADATA_KEY: json.dumps({"transformer.r": RANK, "transformer.lora_alpha": 12})}
    tensors = {f"transformer.{name}": tensor for name, tensor in random_adapter(*LAYERS).items()}
    save_file(tensors, tmp_path / "style.safetensors", metadata=metadata)
    assert load_lora(tmp_path / "style.safetensors").updates[LAYERS[0]].scale == 12 / RANK


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda tensors: tensors.pop(f"{LAYERS[0]}.lora_B.weight"), "lacks lora_A or lora_B of .*attn1.to_q"),
        (lambda tensors: tensors.update({"proj_out.weight": torch.ones(1)}), "is no LoRA: proj_out.weight"),
        (lambda tensors: tensors.clear(), "is no LoRA: no tensors"),
        (
            lambda tensors: tensors.update({"caption.lora_A.weight": torch.ones(RANK, 1)}),
            "lacks lora_A or lora_B of caption",
        ),
    ],
)
def test_other_tensors_are_refused(
    spoil: Callable[[dict[str, torch.Tensor]], object], message: str, model: PixArtTransformer, tmp_path: Path
) -> None:
    tensors = random_adapter(*LAYERS)
    spoil(tensors)
    save_file(tensors, tmp_path / "style.safetensors")
    with pytest.raises(WeightsError, match=rf"^[^\n]*{message}[^\n]*$"):
        load_lora(tmp_path / "style.safetensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "LOHA"}, "peft_type 'LOHA', which is not supported; use 'LORA'"),
        ({"use_rslora": True}, "use_rslora True"),
        ({"alpha_pattern": {"to_q": 3}}, "alpha_pattern"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa'"),
        ({"r": 4}, "says rank 4, its .* has 3"),
        ({"use_dora": True}, "says use_dora True, its .* has no lora_magnitude_vector"),
        ({"lora_alpha": None}, "lora_alpha None, not a number"),
    ],
)
def test_a_configuration_that_means_something_else_is_refused(
    changes: dict[str, object], message: str, model: PixArtTransformer, tmp_path: Path
) -> None:
    save_adapter(tmp_path, random_adapter(*LAYERS), SETTINGS)
    save_file(load_file(tmp_path / ADAPTER_FILE), tmp_path / ADAPTER_FILE)
    config = tmp_path / ADAPTER_CONFIG_FILE
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    with pytest.raises(WeightsError, match=rf"^[^\n]*{message}[^\n]*$"):
        load_lora(tmp_path)


@pytest.mark.parametrize("metadata", ["{", "[]"])
def test_broken_metadata_is_refused(metadata: str, model: PixArtTransformer, tmp_path: Path) -> None:
    save_file(random_adapter(*LAYERS), tmp_path / "style.safetensors", metadata={METADATA_KEY: metadata})
    with pytest.raises(WeightsError, match=METADATA_KEY):
        load_lora(tmp_path / "style.safetensors")


def test_a_missing_file_a_folder_without_one_and_a_pickle_are_refused(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "style.bin")
    (tmp_path / "corrupt.safetensors").write_bytes(b"\x07garbage" * 9)
    for path, error, message in (
        ("nothing.safetensors", InvalidInput, "nothing.safetensors does not exist"),
        (".", InvalidInput, f"{ADAPTER_FILE} does not exist"),
        ("style.bin", InvalidInput, r"not a \.safetensors file \(pickled weights are never read\)"),
        ("corrupt.safetensors", WeightsError, "is corrupt"),
    ):
        with pytest.raises(error, match=message):
            load_lora(tmp_path / path)


@pytest.mark.parametrize(
    ("layer", "shapes", "message"),
    [
        ("transformer_blocks.9.attn1.to_q", (24, 24), "no such layer: transformer_blocks.9.attn1.to_q;"),
        ("scale_shift_table", (24, 24), "no such layer: scale_shift_table;"),
        (LAYERS[0], (24, 25), r"wrong shape: .*attn1.to_q \[24, 25\] instead of \[24, 24\];"),
        (LAYERS[0], (23, 24), r"wrong shape: .*attn1.to_q \[23, 24\] instead of \[24, 24\];"),
    ],
)
def test_a_lora_of_another_model_is_refused_before_anything_changes(
    layer: str, shapes: tuple[int, int], message: str, model: PixArtTransformer
) -> None:
    tensors = random_adapter(LAYERS[1])
    tensors |= {
        f"{layer}.lora_A.weight": torch.ones(RANK, shapes[1]),
        f"{layer}.lora_B.weight": torch.ones(shapes[0], RANK),
    }
    before = weights_of(model)
    adapter = Adapter(updates_from(tensors, None, "style"), "style")
    with pytest.raises(WeightsError, match=rf"^LoRA style does not fit the model; {message}[^\n]*$"):
        apply_lora(model, adapter)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_magnitude_or_a_rank_that_does_not_fit_is_refused(model: PixArtTransformer) -> None:
    tensors = random_adapter(LAYERS[0], dora=True)
    magnitude = tensors | {f"{LAYERS[0]}.lora_magnitude_vector": torch.ones(1)}
    rank = tensors | {f"{LAYERS[0]}.lora_B.weight": torch.ones(24, RANK + 1)}
    for spoiled in (magnitude, rank):
        with pytest.raises(WeightsError, match="wrong shape"):
            apply_lora(model, Adapter(updates_from(spoiled, None, "style"), "style"))
