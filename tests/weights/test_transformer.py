import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pixart_sigma.errors import InvalidInput, WeightsError
from pixart_sigma.model.config import KVCompression
from pixart_sigma.model.transformer import PixArtTransformer
from pixart_sigma.weights.checkpoint import INDEX_FILE, WEIGHTS_FILE
from pixart_sigma.weights.transformer import load_transformer, save_transformer, with_kv_compression
from tiny_pipeline import TRANSFORMER

COMPRESSED = replace(TRANSFORMER, kv_compression=KVCompression((2, 2), "conv", (2, 3)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_transformer(PixArtTransformer(TRANSFORMER), tmp_path)
    return tmp_path


@pytest.mark.parametrize("config", [TRANSFORMER, COMPRESSED, replace(TRANSFORMER, qk_norm=True)])
def test_a_saved_model_comes_back_bit_by_bit(config: object, tmp_path: Path) -> None:
    model = PixArtTransformer(config)  # type: ignore[arg-type]
    save_transformer(model, tmp_path / "new" / "folder")
    loaded = load_transformer(tmp_path / "new" / "folder")
    assert loaded.config == config
    assert not loaded.training
    saved = model.state_dict()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in loaded.state_dict().items())
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == [
        "config.json",
        WEIGHTS_FILE,
    ]


def test_the_model_loads_in_the_wanted_dtype(folder: Path) -> None:
    assert {parameter.dtype for parameter in load_transformer(folder, torch.bfloat16).parameters()} == {
        torch.bfloat16
    }


def rewrite(folder: Path, **changes: torch.Tensor | None) -> None:
    state_dict = load_file(folder / WEIGHTS_FILE)
    for name, tensor in changes.items():
        if tensor is None:
            del state_dict[name]
        else:
            state_dict[name] = tensor
    save_file(state_dict, folder / WEIGHTS_FILE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"proj_out.bias": None}, r"missing: proj_out\.bias; export"),
        ({"stray": torch.ones(1)}, "unexpected: stray; export"),
        ({"proj_out.bias": torch.ones(3)}, r"wrong shape: proj_out\.bias \[3\] instead of \[32\]; export"),
    ],
)
def test_every_difference_is_named(
    folder: Path, changes: dict[str, torch.Tensor | None], message: str
) -> None:
    rewrite(folder, **changes)
    with pytest.raises(WeightsError, match=message):
        load_transformer(folder)


def test_many_differences_are_counted(folder: Path) -> None:
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_layers": 5}))
    with pytest.raises(
        WeightsError, match=r"missing: transformer_blocks\.4\.[^,]*, [^,]*, [^,]* and \d+ more;"
    ):
        load_transformer(folder)


@pytest.mark.parametrize("name", ["pos_embed.pos_embed", "caption_projection.y_embedding"])
def test_old_buffers_are_dropped(folder: Path, name: str) -> None:
    rewrite(folder, **{name: torch.ones(1, 4, 24)})
    assert name not in load_transformer(folder).state_dict()


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / WEIGHTS_FILE).unlink()
    with pytest.raises(WeightsError, match=rf"weight file .*{WEIGHTS_FILE} is missing"):
        load_transformer(folder)


@pytest.mark.parametrize("kept", [0, 7, 200, -1])
def test_a_truncated_file_is_refused(folder: Path, kept: int) -> None:
    file = folder / WEIGHTS_FILE
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(WeightsError, match=r"^weight file [^\n]* is corrupt \([^\n]*\)"):
        load_transformer(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "\ud800"])
def test_a_broken_configuration_is_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(WeightsError, match=r"config\.json"):
        load_transformer(folder)


def test_a_pickle_in_the_place_of_the_weights_is_never_run(folder: Path) -> None:
    torch.save(PixArtTransformer(TRANSFORMER).state_dict(), folder / WEIGHTS_FILE)
    with pytest.raises(WeightsError, match="is corrupt"):
        load_transformer(folder)


@pytest.mark.parametrize("config", [TRANSFORMER, COMPRESSED])
def test_average_compression_shares_the_parameters(config: object) -> None:
    model = PixArtTransformer(config).eval()  # type: ignore[arg-type]
    model.proj_out.requires_grad_(False)
    wanted = KVCompression((2, 1), "average", (2, 3))
    compressed = with_kv_compression(model, wanted)
    assert compressed.config.kv_compression == wanted
    assert not compressed.training
    parameters = dict(model.named_parameters())
    for name, parameter in compressed.named_parameters():
        assert parameter is parameters[name]
        assert parameter.requires_grad != name.startswith("proj_out")
    assert model.config == config


def test_a_trained_convolution_is_used_in_some_of_its_blocks() -> None:
    trained = replace(TRANSFORMER, kv_compression=KVCompression((2, 2), "conv", (1, 2, 3), from_tokens=50))
    model = PixArtTransformer(trained).eval()
    some = with_kv_compression(model, KVCompression((2, 2), "conv", (2, 3)))
    assert some.config.kv_compression == KVCompression((2, 2), "conv", (2, 3), norm=True)
    name = "transformer_blocks.2.attn1.kv_compression.conv.weight"
    assert some.get_parameter(name).data_ptr() == model.get_parameter(name).data_ptr()
    assert not any("blocks.1.attn1.kv" in name for name, _ in some.named_parameters())


@pytest.mark.parametrize(
    ("own", "wanted", "message"),
    [
        (None, KVCompression((2, 2), "conv", (2,)), "needs weights that this model was not trained with"),
        (KVCompression((2, 2), "average", (2,)), KVCompression((2, 2), "conv", (2,)), "was not trained with"),
        (KVCompression((2, 2), "conv", (2,)), KVCompression((1, 2), "conv", (2,)), "window of 2x2, not 1x2"),
        (KVCompression((2, 2), "conv", (2,)), KVCompression((2, 2), "conv", (1, 2)), "no weights in block 1"),
    ],
)
def test_a_convolution_that_was_not_trained_is_refused(
    own: KVCompression | None, wanted: KVCompression, message: str
) -> None:
    model = PixArtTransformer(replace(TRANSFORMER, kv_compression=own))
    with pytest.raises(InvalidInput, match=message):
        with_kv_compression(model, wanted)


def test_weights_in_several_files_come_back_bit_by_bit(tmp_path: Path) -> None:
    model = PixArtTransformer(TRANSFORMER)
    save_transformer(model, tmp_path, max_shard_size="20KB")
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) > 2
    assert max(path.stat().st_size for path in files) < 40_000
    again = load_transformer(tmp_path).state_dict()
    assert again.keys() == model.state_dict().keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in model.state_dict().items())
    save_transformer(model, tmp_path)
    assert [path.name for path in tmp_path.glob("*.safetensors*")] == [WEIGHTS_FILE]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: next(folder.glob("*-00002-*")).unlink(), "is missing"),
        (lambda folder: (folder / INDEX_FILE).write_text('{"weight_map": {"a": "../b"}}'), "beside it"),
        (lambda folder: (folder / INDEX_FILE).write_text("{}"), "beside it"),
        (
            lambda folder: (folder / INDEX_FILE).write_text(
                (folder / INDEX_FILE).read_text().replace("proj_out.bias", "proj_out.tilt")
            ),
            "does not fit its files: proj_out.bias, proj_out.tilt",
        ),
    ],
)
def test_a_broken_index_is_refused(spoil: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    save_transformer(PixArtTransformer(TRANSFORMER), tmp_path, max_shard_size="20KB")
    spoil(tmp_path)
    with pytest.raises(WeightsError, match=message):
        load_transformer(tmp_path)
