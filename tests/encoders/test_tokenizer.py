"""Our tokenizer beside transformers', on the same files."""

import json
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models

from pixart_sigma.encoders.pretrained import load_tokenizer
from pixart_sigma.encoders.tokenizer import Tokenizer
from pixart_sigma.errors import WeightsError
from pixart_sigma.training.pipeline_folder import write_tokenizer
from pixart_sigma.weights.folder import find_pipeline

TEXTS = [
    "a small cactus with a happy face",
    "",
    "A RED house,  by the lake!",
    "quick zebras 42% ✓",
    "red " * 400,
]


@pytest.fixture(scope="module")
def pocket() -> Path:
    return find_pipeline("pocket")["tokenizer"] / "tokenizer"


def test_ids_are_those_of_transformers(pocket: Path) -> None:
    ours, theirs = Tokenizer.from_folder(pocket), load_tokenizer(pocket)
    assert ours.encode(TEXTS) == theirs(TEXTS, verbose=False).input_ids
    assert ours.encode(TEXTS, 30) == theirs(TEXTS, truncation=True, max_length=30).input_ids
    assert (ours.pad_token_id, ours.eos_token_id, len(ours)) == (
        theirs.pad_token_id,
        theirs.eos_token_id,
        len(theirs),
    )
    for ids in ours.encode(TEXTS):
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


def test_padding_that_a_file_asks_for_is_left_out(pocket: Path, tmp_path: Path) -> None:
    backend = Backend.from_file(str(pocket / "tokenizer.json"))
    backend.enable_padding(length=20)
    folder = Path(shutil.copytree(pocket, tmp_path / "padded"))
    backend.save(str(folder / "tokenizer.json"))
    assert Tokenizer.from_folder(folder).encode(TEXTS) == Tokenizer.from_folder(pocket).encode(TEXTS)


def test_roles_may_stand_in_another_file(pocket: Path, tmp_path: Path) -> None:
    """As older versions of transformers wrote them."""
    folder = Path(shutil.copytree(pocket, tmp_path / "old"))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    names = ("pad_token", "eos_token", "unk_token")
    roles = {name: config.pop(name) for name in names}
    (folder / "special_tokens_map.json").write_text(json.dumps(roles))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = Tokenizer.from_folder(folder)
    assert tokenizer.roles == roles
    assert tokenizer.encode(TEXTS) == Tokenizer.from_folder(pocket).encode(TEXTS)


def test_what_is_cut_once_is_whole_the_next_time(pocket: Path) -> None:
    tokenizer = Tokenizer.from_folder(pocket)
    whole = tokenizer.encode(TEXTS)
    tokenizer.encode(TEXTS, 3)
    assert tokenizer.encode(TEXTS) == whole


def test_transformers_opens_what_was_written(pocket: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_folder(pocket)
    tokenizer.encode(TEXTS, 5)
    write_tokenizer(tokenizer, tmp_path)
    assert load_tokenizer(tmp_path)(TEXTS).input_ids == tokenizer.encode(TEXTS)
    assert Tokenizer.from_folder(tmp_path).encode(TEXTS) == tokenizer.encode(TEXTS)


def test_t5s_own_class_is_left_to_transformers(tmp_path: Path) -> None:
    """It has its own way with spaces, whatever tokenizer.json says of them."""
    pieces = ["<pad>", "</s>", "<unk>", "▁a", "▁red", "▁house", "house", "▁", *"adehorsu"]
    backend = Backend(
        models.Unigram([(piece, -float(index)) for index, piece in enumerate(pieces)], unk_id=2)
    )
    config = {
        "tokenizer_class": "T5Tokenizer",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    (tmp_path / "tokenizer.json").write_text(backend.to_str())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    texts = ["a red house", "", "  a  red"]
    ours, theirs = Tokenizer.from_folder(tmp_path), load_tokenizer(tmp_path)
    assert ours.encode(texts) == theirs(texts).input_ids
    assert ours.encode(["a red house"]) == [[3, 4, 5, 1]]
    assert ours.encode(["a red house"], 2) == [[3, 1]]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", "{}"),
        ("tokenizer.json", ""),
        ("tokenizer_config.json", "[]"),
    ],
)
def test_broken_files_are_one_line(name: str, content: str, pocket: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pocket, tmp_path / "broken"))
    (folder / name).write_text(content)
    with pytest.raises(WeightsError, match=r"^the tokenizer in [^\n]* cannot be loaded \([^\n]*\); [^\n]*$"):
        Tokenizer.from_folder(folder)
