import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from pixart_sigma.encoders.text import TextEncoder
from pixart_sigma.errors import InvalidInput, MissingDependency, WeightsError
from pixart_sigma.pipeline.captions import EncodedPrompts
from pixart_sigma.pipeline.text_to_image import TextToImage

PROMPTS = ["a red house", "a small cactus in the desert"]


def text_alone(folder: Path, **options: Any) -> TextToImage:
    return TextToImage.from_pretrained(folder, transformer=None, autoencoder=None, **options)


def equal(one: EncodedPrompts, other: EncodedPrompts) -> bool:
    pairs = [(value, getattr(other, name)) for name, value in vars(one).items()]
    assert len(pairs) == 4
    return all(ours.dtype == theirs.dtype and torch.equal(ours, theirs) for ours, theirs in pairs)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the text encoders were loaded with."""
    found: list[dict[str, Any]] = []
    load = TextEncoder.from_pretrained

    def counted(*arguments: Any, **options: Any) -> TextEncoder:
        found.append(options)
        return load(*arguments, **options)

    monkeypatch.setattr(TextEncoder, "from_pretrained", counted)
    return found


@pytest.fixture
def own_folder(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "own"))


@pytest.mark.parametrize("profile", ["diffusers", "official"])
def test_a_streamed_text_encoder_changes_nothing(profile: str, tiny_folder: Path) -> None:
    resident = text_alone(tiny_folder, profile=profile).encode(PROMPTS)
    assert equal(
        text_alone(tiny_folder, profile=profile, text_encoder_held="streamed").encode(PROMPTS), resident
    )


def test_prompts_and_null_branch_are_one_pass_through_the_files(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = text_alone(tiny_folder, text_encoder_held="streamed")
    read: list[int] = []
    fetch = model.text_encoder.model._fetched
    monkeypatch.setattr(
        model.text_encoder.model, "_fetched", lambda number: (read.append(number), fetch(number))[1]
    )
    model.encode(PROMPTS, "blurry")
    assert read == [0, 1]


@pytest.mark.parametrize("profile", ["diffusers", "official"])
def test_known_prompts_need_no_text_encoder(
    profile: str, tiny_folder: Path, tmp_path: Path, loads: list[dict[str, Any]]
) -> None:
    expected = text_alone(tiny_folder, profile=profile).encode(PROMPTS)
    loads.clear()
    options: dict[str, Any] = {"profile": profile, "prompt_cache": tmp_path / "cache"}
    # Held in either way, the embeddings are the same bits, so they are shared.
    for held in ("streamed", "resident"):
        assert equal(text_alone(tiny_folder, text_encoder_held=held, **options).encode(PROMPTS), expected)
    assert [each["held"] for each in loads] == ["streamed"]
    whole = TextToImage.from_pretrained(tiny_folder, **options)
    assert equal(whole.encode(PROMPTS), expected)
    assert len(loads) == 1


def test_a_picture_from_the_cache_is_the_same(tiny_folder: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"height": 64, "width": 64, "num_steps": 2}
    expected = TextToImage.from_pretrained(tiny_folder)("a red house", **options)
    for _ in range(2):
        model = TextToImage.from_pretrained(tiny_folder, prompt_cache=tmp_path)
        assert torch.equal(model("a red house", **options).latents, expected.latents)


def changed_weights(folder: Path) -> None:
    path = folder / "text_encoder" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def changed_tokenizer(folder: Path) -> None:
    path = folder / "tokenizer" / "tokenizer.json"
    path.write_text(path.read_text("utf-8") + "\n", "utf-8")


def shorter_captions(folder: Path) -> None:
    index = folder / "model_index.json"
    index.write_text(index.read_text("utf-8").replace("PixArtSigmaPipeline", "PixArtAlphaPipeline"), "utf-8")


@pytest.mark.parametrize("change", [changed_weights, changed_tokenizer, shorter_captions])
def test_the_cache_of_another_text_encoder_is_not_used(
    change: Any, own_folder: Path, tmp_path: Path, loads: list[dict[str, Any]]
) -> None:
    text_alone(own_folder, prompt_cache=tmp_path / "cache").encode(PROMPTS)
    change(own_folder)
    text_alone(own_folder, prompt_cache=tmp_path / "cache").encode(PROMPTS)
    assert len(loads) == 2


def test_another_dtype_is_another_precision(
    tiny_folder: Path, tmp_path: Path, loads: list[dict[str, Any]]
) -> None:
    for dtype in ("float32", "bfloat16", "bfloat16"):
        encoded = text_alone(tiny_folder, dtype=dtype, prompt_cache=tmp_path).encode(PROMPTS)
        assert encoded.embeds.dtype == getattr(torch, dtype)
    assert len(loads) == 2


def test_a_quantised_hold_is_another_precision(
    tiny_folder: Path, tmp_path: Path, loads: list[dict[str, Any]]
) -> None:
    exact = text_alone(tiny_folder, prompt_cache=tmp_path).encode(PROMPTS)
    for _ in range(2):
        found = text_alone(tiny_folder, text_encoder_held="int8", prompt_cache=tmp_path).encode(PROMPTS)
        assert not torch.equal(found.embeds, exact.embeds)
    assert [each["held"] for each in loads] == ["resident", "int8"]


def test_a_cached_encoder_is_shared_at_another_caption_length(
    tiny_folder: Path, own_folder: Path, tmp_path: Path
) -> None:
    shorter_captions(own_folder)
    text_encoder = text_alone(tiny_folder, prompt_cache=tmp_path / "cache").text_encoder
    shared = TextToImage.from_pretrained(own_folder, text_encoder=text_encoder, autoencoder=None)
    assert shared.text_encoder.caption_length == 120
    assert shared.encode("a red house").embeds.shape == (1, 4, 16)


def test_a_cache_that_cannot_be_written_is_a_warning(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        encoded = text_alone(tiny_folder, prompt_cache=tmp_path / "file").encode(PROMPTS)
    assert len(encoded) == 2
    messages = [str(each.message) for each in caught]
    assert all(str(tmp_path / "file") in message and "another folder" in message for message in messages)
    assert len(messages) == 2  # of the digest that is not remembered, and of the prompts


def test_a_text_encoder_of_another_width_is_refused_before_it_is_loaded(
    own_folder: Path, tmp_path: Path, loads: list[dict[str, Any]]
) -> None:
    config = own_folder / "text_encoder" / "config.json"
    content = config.read_text("utf-8")
    config.write_text(content.replace('"d_model": 16', '"d_model": 24'), "utf-8")
    with pytest.raises(WeightsError, match="the text encoder's width is 24, the pipeline needs 16"):
        TextToImage.from_pretrained(own_folder, autoencoder=None, prompt_cache=tmp_path / "cache")
    config.write_text(content.replace('"d_model": 16', '"d_model": "wide"'), "utf-8")
    with pytest.raises(WeightsError, match="has d_model 'wide', not a positive integer"):
        text_alone(own_folder, prompt_cache=tmp_path / "cache")
    config.unlink()
    with pytest.raises(WeightsError, match=r"config\.json cannot be read"):
        text_alone(own_folder, prompt_cache=tmp_path / "cache")
    assert loads == []


def test_bad_holds_are_refused(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInput, match="unknown hold of the text encoder 'int3'"):
        text_alone(tiny_folder, text_encoder_held="int3")
    with pytest.raises(InvalidInput, match="nf4 needs widths that are multiples of 64, d_model is 16"):
        text_alone(tiny_folder, text_encoder_held="nf4")
    for options in ({"text_encoder_held": "streamed"}, {"prompt_cache": tmp_path}):
        with pytest.raises(InvalidInput, match="are for a text encoder that is loaded"):
            TextToImage.from_pretrained(tiny_folder, text_encoder=None, **options)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingDependency, match="needs the package bitsandbytes"):
        # Before the model is looked for.
        text_alone(tmp_path / "nowhere", text_encoder_held="int8", prompt_cache=tmp_path)
