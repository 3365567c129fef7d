import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from pixart_sigma.encoders.autoencoder import Autoencoder
from pixart_sigma.encoders.text import TextEncoder
from pixart_sigma.errors import WeightsError

WEIGHT_FILES = {
    Autoencoder: Path("vae/diffusion_pytorch_model.safetensors"),
    TextEncoder: Path("text_encoder/model.safetensors"),
}
LOADERS = pytest.mark.parametrize("loader", [Autoencoder, TextEncoder])


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "broken"))


@LOADERS
def test_a_missing_file_is_named(loader: type[Autoencoder | TextEncoder], folder: Path) -> None:
    (folder / WEIGHT_FILES[loader]).unlink()
    with pytest.raises(WeightsError, match=r"has neither [a-z_]+\.safetensors nor [a-z_.]+\.index\.json"):
        loader.from_pretrained(folder)


@LOADERS
def test_pickled_weights_are_not_read(loader: type[Autoencoder | TextEncoder], folder: Path) -> None:
    file = folder / WEIGHT_FILES[loader]
    file.rename(file.with_suffix(".bin"))
    with pytest.raises(WeightsError, match="pickled weights are never read"):
        loader.from_pretrained(folder)


@LOADERS
@pytest.mark.parametrize("kept", [0, 4, 100, -10])
def test_a_truncated_file_is_refused_in_one_line(
    loader: type[Autoencoder | TextEncoder], folder: Path, kept: int
) -> None:
    file = folder / WEIGHT_FILES[loader]
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(WeightsError, match=r"^[^\n]* cannot be loaded \([^\n]*\); fetch or export it again$"):
        loader.from_pretrained(folder)


@LOADERS
def test_a_missing_tensor_is_named(loader: type[Autoencoder | TextEncoder], folder: Path) -> None:
    file = folder / WEIGHT_FILES[loader]
    state_dict = load_file(file)
    name = next(name for name in state_dict if name.endswith(("layer_norm.weight", "conv_in.weight")))
    del state_dict[name]
    save_file(state_dict, file, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=f"missing {name}"):
        loader.from_pretrained(folder)


@LOADERS
def test_an_unexpected_tensor_is_named(loader: type[Autoencoder | TextEncoder], folder: Path) -> None:
    file = folder / WEIGHT_FILES[loader]
    state_dict = load_file(file)
    state_dict["stray.weight"] = next(iter(state_dict.values())).clone()
    save_file(state_dict, file, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"unexpected stray\.weight"):
        loader.from_pretrained(folder)


def test_a_wrong_shape_is_refused(folder: Path) -> None:
    config = folder / "vae" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"latent_channels": 8}))
    with pytest.raises(WeightsError, match=r"^[^\n]*vae[^\n]*$"):
        Autoencoder.from_pretrained(folder)


def test_a_broken_tokenizer_is_refused_in_one_line(folder: Path) -> None:
    (folder / "tokenizer" / "tokenizer.json").write_text("{")
    with pytest.raises(WeightsError, match=r"^[^\n]*tokenizer cannot be loaded[^\n]*$"):
        TextEncoder.from_pretrained(folder)


def test_loading_says_nothing(tiny_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    TextEncoder.from_pretrained(tiny_folder)
    Autoencoder.from_pretrained(tiny_folder)
    assert capfd.readouterr() == ("", "")
