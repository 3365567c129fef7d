import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from comparison import relative_error
from encoded_pictures import record
from pixart_sigma.data.features import (
    EmbeddingsColumn,
    LatentsColumn,
    add_embeddings,
    add_latents,
    autoencoder_digest,
    embeddings_column,
    latents_column,
    text_encoder_digest,
)
from pixart_sigma.data.features import latents as latents_module
from pixart_sigma.data.images import bucket_crop
from pixart_sigma.data.table import Table
from pixart_sigma.encoders.autoencoder import Autoencoder
from pixart_sigma.encoders.text import TextEncoder
from pixart_sigma.errors import InvalidInput

DIGEST = "0123456789abcdef0123456789abcdef"
OTHER = "01234567ffffffffffffffffffffffff"  # the same beginning
WIDE, TALL = (32, 48), (48, 32)


def bucket_of(height: int, width: int) -> tuple[int, int]:
    return WIDE if width >= height else TALL


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """Seven rows in fragments of three, wide and tall pictures by turns; two captions, of which one is everywhere."""
    table = Table.create(tmp_path / "a.lance", {})
    sizes = [(40, 60) if index % 2 else (60, 40) for index in range(7)]
    texts = [
        (f"a {word} house", "a red cactus by the lake")
        for word in "red blue small big red blue small".split()
    ]
    table.append((record(index, *sizes[index], texts=texts[index]) for index in range(7)), 3)
    return table


@pytest.fixture
def autoencoder(tiny_folder: Path) -> Autoencoder:
    return Autoencoder.from_pretrained(tiny_folder)


@pytest.fixture
def text_encoder(tiny_folder: Path) -> TextEncoder:
    return TextEncoder.from_pretrained(tiny_folder)


def expected_latents(autoencoder: Autoencoder, image: bytes, shape: tuple[int, int]) -> Tensor:
    pixels = torch.tensor(bucket_crop(image, *shape)).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        return autoencoder.model.encode(pixels)[0][0].float()


@pytest.mark.parametrize("max_pixels", [1, 2 * 32 * 48, 10**9])
def test_latents_are_the_unscaled_means_in_the_bucket(
    table: Table, autoencoder: Autoencoder, max_pixels: int
) -> None:
    add_latents(table, autoencoder, DIGEST, bucket_of, 512, max_pixels=max_pixels)
    column = LatentsColumn(Table.open(table.path), 512, "aspect", DIGEST)
    assert column.name == latents_column(512, "aspect", DIGEST) == "latents_512_01234567"
    assert column.present().tolist() == [True] * 7
    rows = [6, 1, 1, 4]
    found = column.take(rows)
    for row, latents in zip(rows, found, strict=True):
        shape = WIDE if row % 2 else TALL
        assert latents is not None
        assert (latents.dtype, tuple(latents.shape)) == (torch.float16, (4, shape[0] // 8, shape[1] // 8))
        sizes = (40, 60) if row % 2 else (60, 40)
        expected = expected_latents(autoencoder, record(row, *sizes).image, shape)
        assert relative_error(latents.float(), expected) <= 2e-2  # bf16
    assert not torch.equal(found[0], found[3])


def test_at_most_so_many_pixels_are_encoded_at_once(
    table: Table, autoencoder: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = latents_module._encode
    batches: list[tuple[int, ...]] = []
    monkeypatch.setattr(
        latents_module,
        "_encode",
        lambda model, images: batches.append(images.shape[:3]) or encode(model, images),
    )
    add_latents(table, autoencoder, DIGEST, bucket_of, 512, max_pixels=2 * 32 * 48)
    # The fragments' shapes: tall, wide, tall; wide, tall, wide; tall.
    assert batches == [(2, *TALL), (1, *WIDE), (2, *WIDE), (1, *TALL), (1, *TALL)]


def test_what_cannot_be_encoded_is_null_with_a_reason(
    table: Table, autoencoder: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = record(1, 40, 60).image

    def crop(image: bytes, height: int, width: int) -> Any:
        if image == broken:
            raise latents_module.CorruptImage("it faded")
        return bucket_crop(image, height, width)

    encode = latents_module._encode
    infinite = bucket_crop(record(4, 60, 40).image, *TALL)

    def encode_some(model: Autoencoder, images: Any) -> Any:
        found = encode(model, images)
        found[[np.array_equal(image, infinite) for image in images]] = np.inf
        return found

    monkeypatch.setattr(latents_module, "bucket_crop", crop)
    monkeypatch.setattr(latents_module, "_encode", encode_some)
    skipped: dict[str, str] = {}
    column = add_latents(table, autoencoder, DIGEST, bucket_of, 512, max_pixels=1, skip=skipped.__setitem__)
    assert skipped == {"key 1": "it faded", "key 4": "its latents are not finite in fp16"}
    assert column.present().tolist() == [True, False, True, True, False, True, True]
    assert [latents is None for latents in column.take([1, 2, 4])] == [True, False, True]


def test_latents_are_made_once_for_each_autoencoder_and_base(
    table: Table, autoencoder: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports: list[tuple[int, int]] = []
    add_latents(table, autoencoder, DIGEST, bucket_of, 512, report=lambda *done: reports.append(done))
    assert reports == [(1, 3), (2, 3), (3, 3)]
    monkeypatch.setattr(latents_module, "_encode", None)
    add_latents(table, autoencoder, DIGEST, bucket_of, 512)
    monkeypatch.undo()
    add_latents(table, autoencoder, DIGEST, lambda *size: (32, 32), 512, "square")
    add_latents(table, autoencoder, "another", bucket_of, 512)
    added = ["latents_512_01234567", "latents_512square_01234567", "latents_512_another"]
    assert table.columns[-3:] == added
    square = LatentsColumn(table, 512, "square", DIGEST).take([0])[0]
    assert square is not None
    assert square.shape == (4, 4, 4)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_embeddings_are_those_of_each_caption(
    table: Table, text_encoder: TextEncoder, precision: Any
) -> None:
    add_embeddings(table, text_encoder, DIGEST, precision)
    column = EmbeddingsColumn(Table.open(table.path), DIGEST, 300)
    assert column.name == embeddings_column(DIGEST, 300) == "embeddings_300_01234567"
    found = column.take([3, 0, 3], [0, 1, 1])
    captions = ["a big house", "a red cactus by the lake", "a red cactus by the lake"]
    for embedding, caption in zip(found, captions, strict=True):
        with torch.no_grad():
            (expected,), _ = text_encoder.encode([caption])
        assert embedding.dtype == (torch.bfloat16 if precision == "bf16" else torch.float16)
        assert embedding.shape == expected.shape  # no padding
        assert relative_error(embedding.float(), expected) <= (5e-2 if precision == "bf16" else 1e-3)
    assert not torch.equal(found[0][:3], found[1][:3])


def test_captions_are_encoded_a_part_at_a_time(
    table: Table, text_encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = add_embeddings(table, text_encoder, DIGEST, "fp16").take(range(7), [0] * 7)
    monkeypatch.setattr("pixart_sigma.data.features.embeddings._MAX_EMBEDDING_BYTES", 2 * 300 * 16 * 2)
    encoded: list[int] = []
    encode = text_encoder.encode
    monkeypatch.setattr(text_encoder, "encode", lambda texts: encoded.append(len(texts)) or encode(texts))
    parts = add_embeddings(table, text_encoder, OTHER[::-1], "fp16").take(range(7), [0] * 7)
    assert max(encoded) == 2
    assert all(relative_error(a.float(), b.float()) <= 1e-3 for a, b in zip(whole, parts, strict=True))


def test_cut_captions_are_counted_in_one_warning(table: Table, tiny_folder: Path) -> None:
    text = TextEncoder.from_pretrained(tiny_folder)
    short = TextEncoder(text.tokenizer, text.model, caption_length=5)
    with pytest.warns(UserWarning, match=r"^3 captions were cut to 5 tokens$") as caught:
        column = add_embeddings(table, short, DIGEST)
    assert len(caught) == 1
    assert [len(embedding) for embedding in column.take([0, 0], [0, 1])] == [4, 5]


def test_other_warnings_are_passed_on(
    table: Table, text_encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(texts: list[str]) -> Any:
        warnings.warn("beware", UserWarning, stacklevel=1)
        return TextEncoder.encode(text_encoder, texts)

    monkeypatch.setattr(text_encoder, "encode", encode)
    with pytest.warns(UserWarning, match="beware"):
        add_embeddings(table, text_encoder, DIGEST)


def test_embeddings_that_overflow_are_an_error(table: Table, text_encoder: TextEncoder) -> None:
    with torch.no_grad():
        text_encoder.model.encoder.final_layer_norm.weight.fill_(1e6)
    with pytest.raises(InvalidInput, match="cache them in bf16"):
        add_embeddings(table, text_encoder, DIGEST, "fp16")
    assert add_embeddings(table, text_encoder, OTHER[::-1], "bf16").take([0], [0])[0].isfinite().all()


def test_features_of_other_weights_are_refused(
    table: Table, autoencoder: Autoencoder, text_encoder: TextEncoder
) -> None:
    add_latents(table, autoencoder, DIGEST, bucket_of, 512)
    add_embeddings(table, text_encoder, DIGEST)
    calls = {
        f"has autoencoder {DIGEST}, not {OTHER}": lambda: LatentsColumn(table, 512, "aspect", OTHER),
        "has no latents_1024_01234567, .*; it has latents_512_01234567": lambda: LatentsColumn(
            table, 1024, "aspect", DIGEST
        ),
        f"has text_encoder {DIGEST}, not {OTHER}": lambda: EmbeddingsColumn(table, OTHER, 300),
        "has no embeddings_120_01234567": lambda: EmbeddingsColumn(table, DIGEST, 120),
        "column latents_512_01234567 of table .* drop it": lambda: add_latents(
            table, autoencoder, OTHER, bucket_of, 512
        ),
        "'precision': 'bf16'.* drop it": lambda: add_embeddings(table, text_encoder, DIGEST, "fp16"),
    }
    for message, call in calls.items():
        with pytest.raises(InvalidInput, match=message) as raised:
            call()
        assert "\n" not in str(raised.value)


def test_an_unknown_precision_is_refused(table: Table) -> None:
    metadata = {"text_encoder": DIGEST, "caption_length": "300", "channels": "16", "precision": "fp8"}
    column_type = pa.list_(pa.large_binary())
    table.add_column(
        embeddings_column(DIGEST, 300),
        column_type,
        metadata,
        ["key"],
        lambda rows: [pa.nulls(len(rows), column_type)],
    )
    with pytest.raises(InvalidInput, match="precision 'fp8'"):
        EmbeddingsColumn(table, DIGEST, 300)


def test_unfinished_features_are_refused(
    table: Table, autoencoder: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = latents_module._encode
    calls: Iterator[bool] = iter([True, True])

    def encode_some(model: Autoencoder, images: Any) -> Any:
        if not next(calls, False):
            raise KeyboardInterrupt
        return encode(model, images)

    monkeypatch.setattr(latents_module, "_encode", encode_some)
    with pytest.raises(KeyboardInterrupt):
        add_latents(table, autoencoder, DIGEST, bucket_of, 512)
    with pytest.raises(InvalidInput, match="unfinished, 2 fragments lack it"):
        LatentsColumn(table, 512, "aspect", DIGEST)
    monkeypatch.undo()
    assert add_latents(table, autoencoder, DIGEST, bucket_of, 512).present().all()


def test_the_digest_of_an_autoencoder_follows_its_weights(tiny_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_folder / "vae", tmp_path / "vae")
    assert autoencoder_digest(tmp_path) == autoencoder_digest(tiny_folder)
    change(tmp_path / "vae/diffusion_pytorch_model.safetensors", "quant_conv.bias")
    assert autoencoder_digest(tmp_path) != autoencoder_digest(tiny_folder)


def test_the_digest_of_a_text_encoder_follows_weights_and_tokenizer(
    tiny_folder: Path, tmp_path: Path
) -> None:
    for part in ("text_encoder", "tokenizer"):
        shutil.copytree(tiny_folder / part, tmp_path / part)
    digests = [text_encoder_digest(tmp_path)]
    assert digests[0] == text_encoder_digest(tiny_folder)
    change(tmp_path / "text_encoder/model.safetensors", "encoder.final_layer_norm.weight")
    digests.append(text_encoder_digest(tmp_path))
    tokenizer = tmp_path / "tokenizer/tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace("house", "hovel"))
    digests.append(text_encoder_digest(tmp_path))
    tokenizer.rename(tmp_path / "tokenizer/renamed.json")
    digests.append(text_encoder_digest(tmp_path))
    config = tmp_path / "text_encoder/config.json"
    config.write_text(config.read_text().replace("gated-gelu", "gated-silu"))
    digests.append(text_encoder_digest(tmp_path))
    assert len(set(digests)) == len(digests)


def change(path: Path, name: str) -> None:
    weights = load_file(path)
    weights[name][0] += 1
    save_file(weights, path)
