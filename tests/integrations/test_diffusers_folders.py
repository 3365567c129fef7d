"""What the class opens and writes, and who else opens it."""

import json
import logging
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pixart_sigma.encoders.t5_files import load_t5
from pixart_sigma.encoders.tokenizer import Tokenizer
from pixart_sigma.errors import WeightsError
from pixart_sigma.model.config import TransformerConfig
from pixart_sigma.pipeline.text_to_image import TextToImage
from pixart_sigma.training.pipeline_folder import write_pipeline
from pixart_sigma.weights.folder import caption_length, find_pipeline
from pixart_sigma.weights.transformer import load_transformer
from tiny_diffusers import (
    CONVOLVED,
    MICRO,
    compressed,
    inputs,
    open_model,
    open_pipeline,
    predict,
    random_model,
    sampled,
    write_transformer,
)
from tiny_pipeline import TRANSFORMER

MODULE = "pixart_sigma.integrations.diffusers"
CLASS = "PixArtSigmaTransformer2DModel"
WEIGHTS = "diffusion_pytorch_model.safetensors"


class Complaints(logging.Handler):
    """The messages of warnings and worse."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.fixture
def complaints() -> Iterator[list[str]]:
    """What diffusers complains about."""
    handler = Complaints()
    logger = logging.getLogger("diffusers")
    logger.addHandler(handler)
    yield handler.messages
    logger.removeHandler(handler)


@pytest.mark.parametrize("config", [TRANSFORMER, CONVOLVED, MICRO, compressed("average", from_tokens=9)])
@pytest.mark.parametrize("shard_size", ["10GB", "20KB"])
def test_a_folder_comes_back_bit_by_bit(
    tmp_path: Path, config: TransformerConfig, shard_size: str, complaints: list[str]
) -> None:
    model = open_model(write_transformer(tmp_path / "ours", config))
    model.save_pretrained(tmp_path / "theirs", max_shard_size=shard_size)
    again = load_transformer(tmp_path / "theirs")
    assert again.config == config
    expected = load_transformer(tmp_path / "ours").state_dict()
    for state_dict in (
        again.state_dict(),
        model.state_dict(),
        open_model(tmp_path / "theirs").state_dict(),
    ):
        assert state_dict.keys() == expected.keys()
        assert all(torch.equal(state_dict[name], tensor) for name, tensor in expected.items())
    assert not complaints


def test_a_plain_models_folder_opens_in_diffusers_class(tmp_path: Path, complaints: list[str]) -> None:
    from diffusers import AutoModel, PixArtTransformer2DModel

    model = open_model(write_transformer(tmp_path / "ours", TRANSFORMER))
    model.save_pretrained(tmp_path / "theirs")
    content = json.loads((tmp_path / "theirs/config.json").read_text())
    assert content["_class_name"] == "PixArtTransformer2DModel"
    assert not {"qk_norm", "kv_compression"} & content.keys()
    assert content.items() >= json.loads((tmp_path / "ours/config.json").read_text()).items()
    theirs = PixArtTransformer2DModel.from_pretrained(tmp_path / "theirs")
    torch.testing.assert_close(predict(theirs), predict(model), atol=1e-5, rtol=1e-5)
    assert isinstance(AutoModel.from_pretrained(str(tmp_path / "theirs")), PixArtTransformer2DModel)
    assert not complaints


@pytest.mark.parametrize("config", [CONVOLVED, compressed("nearest")])
def test_what_diffusers_class_lacks_is_not_written_under_its_name(
    tmp_path: Path, config: TransformerConfig
) -> None:
    from diffusers import AutoModel

    model = open_model(write_transformer(tmp_path / "ours", config))
    model.save_pretrained(tmp_path / "theirs")
    for folder in ("ours", "theirs"):
        assert json.loads((tmp_path / folder / "config.json").read_text())["_class_name"] == CLASS
        with pytest.raises(ValueError, match=CLASS):
            AutoModel.from_pretrained(str(tmp_path / folder))


def test_what_diffusers_would_ignore_opens_with_a_warning_alone(
    tmp_path: Path, complaints: list[str]
) -> None:
    """Whoever asks for diffusers' class by name gets it; here is why the folder's own names are others."""
    from diffusers import PixArtTransformer2DModel

    PixArtTransformer2DModel.from_pretrained(write_transformer(tmp_path, compressed("nearest")))
    assert any("kv_compression" in message for message in complaints)


def test_a_saved_pipeline_opens_by_itself(tiny_folder: Path, tmp_path: Path) -> None:
    from diffusers import AutoModel, PixArtSigmaPipeline

    model = open_model(write_transformer(tmp_path / "ours", CONVOLVED))
    open_pipeline(tiny_folder, model).save_pretrained(tmp_path / "pipeline")
    again = PixArtSigmaPipeline.from_pretrained(tmp_path / "pipeline")
    assert type(again.transformer) is type(model)
    assert torch.equal(predict(again.transformer), predict(model))
    assert type(AutoModel.from_pretrained(str(tmp_path / "pipeline"), subfolder="transformer")) is type(model)


def exported(
    tiny_folder: Path, folder: Path, config: TransformerConfig = CONVOLVED, caption_length: int = 300
) -> Path:
    write_pipeline(
        folder,
        random_model(config),
        load_t5(tiny_folder / "text_encoder"),
        Tokenizer.from_folder(tiny_folder / "tokenizer"),
        tiny_folder / "vae",
        0.5,
        "epsilon",
        "10GB",
        caption_length,
    )
    return folder


@pytest.mark.parametrize(
    ("config", "length", "class_name"),
    [
        (TRANSFORMER, 300, "PixArtSigmaPipeline"),
        (TRANSFORMER, 120, "PixArtAlphaPipeline"),
        (TRANSFORMER, 77, "PixArtSigmaPipeline"),
        (MICRO, 120, "PixArtAlphaPipeline"),
        (MICRO, 300, "PixArtAlphaPipeline"),
    ],
)
def test_an_export_opens_as_what_it_is(
    config: TransformerConfig,
    length: int,
    class_name: str,
    tiny_folder: Path,
    tmp_path: Path,
    complaints: list[str],
) -> None:
    from diffusers import DiffusionPipeline

    folder = exported(tiny_folder, tmp_path, config, length)
    assert caption_length(find_pipeline(folder)) == length
    assert TextToImage.from_pretrained(folder).text_encoder.caption_length == length
    pipeline = DiffusionPipeline.from_pretrained(folder)
    assert type(pipeline).__name__ == class_name
    pipeline.set_progress_bar_config(disable=True)
    assert not complaints
    assert sampled(pipeline).isfinite().all()


def test_the_export_of_a_training_opens_in_diffusers_pipeline(tiny_folder: Path, tmp_path: Path) -> None:
    from diffusers import PixArtSigmaPipeline

    pipeline = PixArtSigmaPipeline.from_pretrained(exported(tiny_folder, tmp_path))
    assert type(pipeline.transformer).__name__ == CLASS
    assert torch.equal(predict(pipeline.transformer), predict(open_model(tmp_path / "transformer")))


def test_without_the_import_diffusers_refuses_the_export(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import PixArtSigmaPipeline

    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    with pytest.raises(ValueError, match=rf"{MODULE} .*has not been imported"):
        PixArtSigmaPipeline.from_pretrained(exported(tiny_folder, tmp_path))


def test_buffers_of_old_releases_are_dropped(tmp_path: Path, complaints: list[str]) -> None:
    folder = write_transformer(tmp_path, TRANSFORMER)
    expected = predict(open_model(folder))
    buffers = {
        "pos_embed.pos_embed": torch.zeros(1, 256, 24),
        "caption_projection.y_embedding": torch.zeros(300, 16),
    }
    save_file(load_file(folder / WEIGHTS) | buffers, folder / WEIGHTS, metadata={"format": "pt"})
    assert torch.equal(predict(open_model(folder)), expected)
    assert not complaints


def test_a_configuration_that_leaves_micro_conditioning_open_is_read_as_diffusers_reads_it(
    tmp_path: Path,
) -> None:
    folder = write_transformer(tmp_path, MICRO)
    content = json.loads((folder / "config.json").read_text())
    del content["use_additional_conditions"]
    (folder / "config.json").write_text(json.dumps(content))
    sizes = {"resolution": torch.tensor([[64.0, 96.0]]), "aspect_ratio": torch.tensor([[64 / 96]])}
    model = open_model(folder)
    assert model(**inputs() | {"added_cond_kwargs": sizes}).sample.shape == (2, 8, 8, 12)
    model.save_pretrained(tmp_path / "again")
    assert load_transformer(tmp_path / "again").config == MICRO


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda weights: weights.pop("proj_out.bias"), "missing: proj_out.bias"),
        (lambda weights: weights.update({"proj_out.tilt": torch.zeros(1)}), "unexpected: proj_out.tilt"),
        (
            lambda weights: weights.pop("transformer_blocks.1.attn1.kv_compression.norm.bias"),
            "missing: trans",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path: Path, spoil: Any, message: str) -> None:
    folder = write_transformer(tmp_path, CONVOLVED)
    weights = load_file(folder / WEIGHTS)
    spoil(weights)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=message):
        open_model(folder)


def test_a_wrong_shape_is_refused(tmp_path: Path) -> None:
    folder = write_transformer(tmp_path, TRANSFORMER)
    weights = load_file(folder / WEIGHTS) | {"proj_out.bias": torch.zeros(33)}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"proj_out\.bias expected shape"):
        open_model(folder)


def test_loading_reports_if_asked(tmp_path: Path) -> None:
    folder = write_transformer(tmp_path, TRANSFORMER)
    model, report = open_model(folder, output_loading_info=True)
    assert type(model).__name__ == CLASS
    assert report["missing_keys"] == report["unexpected_keys"] == []


def test_loading_needs_no_empty_model_first(tmp_path: Path) -> None:
    """As where accelerate is not installed."""
    folder = write_transformer(tmp_path, CONVOLVED)
    assert torch.equal(predict(open_model(folder, low_cpu_mem_usage=False)), predict(open_model(folder)))


def test_a_subfolder_opens(tiny_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_folder / "transformer", tmp_path / "transformer")
    assert torch.equal(
        predict(open_model(tmp_path, subfolder="transformer")),
        predict(open_model(tiny_folder / "transformer")),
    )
