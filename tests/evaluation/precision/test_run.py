import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pixart_sigma.encoders.autoencoder import Autoencoder
from pixart_sigma.encoders.text import TextEncoder
from pixart_sigma.errors import WeightsError
from pixart_sigma.evaluation.precision import run as module
from pixart_sigma.evaluation.precision.request import PrecisionRequest
from pixart_sigma.evaluation.precision.run import compare_precision, variants
from pixart_sigma.pipeline import parts
from pixart_sigma.pipeline.text_to_image import TextToImage

PROMPTS = ("a red house", "a small cactus in the desert")


def request(folder: Path, output: Path, **changes: Any) -> PrecisionRequest:
    options = {"size": (64, 64), "num_steps": 2} | changes
    return PrecisionRequest(str(folder), PROMPTS, output, **options)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is loaded, in order."""
    log: list[str] = []
    text, autoencoder, transformer = (
        TextEncoder.from_pretrained,
        Autoencoder.from_pretrained,
        parts._load_transformer,
    )

    def load_text(*arguments: Any, **options: Any) -> Any:
        log.append(options["held"])
        return text(*arguments, **options)

    def load_autoencoder(*arguments: Any, **options: Any) -> Any:
        log.append("autoencoder")
        return autoencoder(*arguments, **options)

    def load_transformer(*arguments: Any) -> Any:
        log.append("transformer")
        return transformer(*arguments)

    monkeypatch.setattr(TextEncoder, "from_pretrained", load_text)
    monkeypatch.setattr(Autoencoder, "from_pretrained", load_autoencoder)
    monkeypatch.setattr(parts, "_load_transformer", load_transformer)
    return log


def test_figures_and_pictures_one_stage_after_the_other(
    tiny_folder: Path, tmp_path: Path, loaded: list[str]
) -> None:
    output = tmp_path / "out"
    stages: list[str] = []
    found = compare_precision(request(tiny_folder, output, seed=5), lambda what, *_: stages.append(what))
    assert json.loads((output / "figures.json").read_text("utf-8")) == found
    assert loaded == ["streamed", "streamed", "int8", "nf4", "transformer", "autoencoder"]
    assert list(dict.fromkeys(stages))[-2:] == ["denoising", "decoding"]

    reference, half, int8 = found["rows"]
    assert [row["name"] for row in found["rows"]] == ["float32", "bfloat16", "int8"]
    assert found["skipped"].keys() == {"nf4", "torchao-int8"}  # 16 channels; not installed
    assert "multiples of 64" in found["skipped"]["nf4"]
    assert "needs the package torchao" in found["skipped"]["torchao-int8"]
    assert "embeddings" not in reference
    for row in (half, int8):
        assert 0 < row["embeddings"]["relative_error"] < 0.2
        assert row["embeddings"]["cosine_min"] <= row["embeddings"]["cosine_mean"] < 1
        assert len(row["prompts"]) == 2
    assert half["embeddings"]["relative_error"] < int8["embeddings"]["relative_error"]

    # The reference's pictures are those that the pipeline makes of itself.
    pipeline = TextToImage.from_pretrained(tiny_folder)
    for index, prompt in enumerate(PROMPTS):
        with Image.open(output / "images" / f"{index + 1:03d}-float32.png") as image:
            expected = pipeline(prompt, height=64, width=64, num_steps=2, seed=5 + index).images[0]
            assert np.array_equal(np.asarray(image), np.asarray(expected))
            assert image.text["prompt"] == prompt
            assert image.text["seed"] == str(5 + index)
            assert image.text["text_encoder"] == "float32"
    pixels = [
        np.asarray(Image.open(output / "images" / f"001-{name}.png"), float) for name in ("int8", "float32")
    ]
    difference = np.abs(pixels[0] - pixels[1]).mean()
    assert int8["prompts"][0]["pictures"]["mean_difference"] == pytest.approx(difference)
    assert (output / "sheet.png").is_file()


def test_embeddings_alone_need_the_text_encoder_alone(
    tiny_folder: Path, tmp_path: Path, loaded: list[str]
) -> None:
    folder = tmp_path / "model"
    for part in ("text_encoder", "tokenizer"):
        shutil.copytree(tiny_folder / part, folder / part)
    asked = PrecisionRequest(str(folder), PROMPTS, tmp_path / "out", embeddings_only=True, dtype="bfloat16")
    found = compare_precision(asked, lambda *_: None)
    assert set(loaded) == {"streamed", "int8", "nf4"}
    assert [row["name"] for row in found["rows"]] == ["bfloat16", "int8"]
    assert found["making"] is None
    assert "pictures" not in found["rows"][1]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["figures.json"]


def test_a_missing_package_leaves_its_rows_out(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    asked = request(tiny_folder, tmp_path / "out", num_steps=None, size=None, embeddings_only=True)
    found = compare_precision(asked, lambda *_: None)
    assert [row["name"] for row in found["rows"]] == ["float32", "bfloat16"]
    assert set(found["skipped"]) == {"int8", "nf4", "torchao-int8"}


def test_a_package_that_fails_leaves_its_rows_out(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = TextEncoder.from_pretrained

    def broken(*arguments: Any, **options: Any) -> Any:
        if options["held"] == "int8":
            raise WeightsError("text_encoder cannot be loaded (no backend)")
        return load(*arguments, **options)

    monkeypatch.setattr(TextEncoder, "from_pretrained", broken)
    asked = request(tiny_folder, tmp_path / "out", num_steps=None, size=None, embeddings_only=True)
    found = compare_precision(asked, lambda *_: None)
    assert [row["name"] for row in found["rows"]] == ["float32", "bfloat16"]
    assert "no backend" in found["skipped"]["int8"]


def test_the_sheet_shows_the_prompts_that_differ_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_SHOWN", 2)

    def row(*differences: float) -> dict[str, Any]:
        return {"prompts": [{"pictures": {"mean_difference": each}} for each in differences]}

    found = {"prompts": list("abcd"), "rows": [{}, row(0, 1, 2, 3), row(9, 1, 2, 0)]}
    assert module._most_different(found) == [0, 3]


def test_bfloat16_stands_beside_float32_only() -> None:
    assert [each.name for each in variants("float32")] == [
        "float32",
        "bfloat16",
        "int8",
        "nf4",
        "torchao-int8",
    ]
    assert [each.name for each in variants("bfloat16")] == ["bfloat16", "int8", "nf4", "torchao-int8"]
