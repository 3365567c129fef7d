import errno
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from comparison import relative_error
from pixart_sigma.encoders.text import TextEncoder
from pixart_sigma.pipeline.captions import encode_prompts
from pixart_sigma.pipeline.profiles import find_profile
from pixart_sigma.pipeline.prompt_cache import CachedTextEncoder

PROMPTS = ["a red house", "a small cactus with a happy face", "", "a red house"]
LENGTH = 20


@pytest.fixture(scope="module")
def text_encoder(tiny_folder: Path) -> TextEncoder:
    return TextEncoder.from_pretrained(tiny_folder, caption_length=LENGTH)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "prompts"


def barred() -> TextEncoder:
    raise AssertionError("the text encoder was loaded")


def cache(folder: Path, load: Callable[[], TextEncoder], **changes: object) -> CachedTextEncoder:
    options = {"digest": "0a" * 16, "precision": "float32", "caption_length": LENGTH, "width": 16}
    return CachedTextEncoder(folder, load=load, **(options | changes))  # type: ignore[arg-type]


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_it_encodes_as_the_text_encoder_does_and_then_without_it(
    text_encoder: TextEncoder, folder: Path
) -> None:
    with torch.no_grad():
        expected = text_encoder.encode(PROMPTS)
    first = cache(folder, lambda: text_encoder).encode(PROMPTS)
    second = cache(folder, barred).encode(PROMPTS)
    for embeddings, mask in (first, second):
        assert torch.equal(embeddings, expected[0])
        assert torch.equal(mask, expected[1])
        assert not embeddings.requires_grad
    assert len(files(folder)) == 3
    shapes = {tuple(load_file(path)["embedding"].shape) for path in files(folder)}
    assert shapes == {(4, 16), (8, 16), (1, 16)}  # unpadded


def test_only_what_is_missing_is_encoded_and_one_load_serves(
    text_encoder: TextEncoder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache(folder, lambda: text_encoder).encode(PROMPTS[:1])
    asked: list[list[list[str]]] = []
    loads: list[int] = []
    encode = TextEncoder.encode_groups
    monkeypatch.setattr(
        TextEncoder, "encode_groups", lambda self, groups: (asked.append(groups), encode(self, groups))[1]
    )

    def load() -> TextEncoder:
        loads.append(1)
        return text_encoder

    encoder = cache(folder, load)
    encoder.encode(PROMPTS)
    encoder.encode(["a lake"])
    assert asked == [[PROMPTS[1:3]], [["a lake"]]]
    assert len(loads) == 1


def test_groups_are_encoded_in_one_go_and_kept_as_each_by_itself(
    text_encoder: TextEncoder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = [PROMPTS, ["a lake", "a red house"], [""]]
    expected = [text_encoder.encode(group) for group in groups]
    asked: list[list[list[str]]] = []
    encode = TextEncoder.encode_groups
    monkeypatch.setattr(
        TextEncoder, "encode_groups", lambda self, some: (asked.append(some), encode(self, some))[1]
    )
    for load in (lambda: text_encoder, barred):
        found = cache(folder, load).encode_groups(groups)
        for ours, theirs in zip(found, expected, strict=True):
            assert torch.equal(ours[1], theirs[1])
            assert relative_error(ours[0], theirs[0]) <= 1e-5
    assert asked == [[PROMPTS[:3], ["a lake"]]]


def test_another_caption_length_shares_the_text_encoder_but_no_files(
    text_encoder: TextEncoder, folder: Path
) -> None:
    loads: list[int] = []

    def load() -> TextEncoder:
        loads.append(1)
        return text_encoder

    encoder = cache(folder, load)
    encoder.encode(["a lake"])
    short = encoder.with_caption_length(3)
    with pytest.warns(UserWarning, match="a prompt of 4 tokens is cut to 3"):
        embeddings, _ = short.encode(["a red house", "a lake"])
    assert embeddings.shape == (2, 3, 16)
    assert loads == [1]
    assert len(files(folder)) == 3
    assert short.width == encoder.width == 16
    assert short.weight_bytes == text_encoder.weight_bytes
    assert cache(folder, barred).weight_bytes == 0


@pytest.mark.parametrize(
    "changes", [{"digest": "0b" * 16}, {"precision": "bfloat16"}, {"caption_length": 19}], ids=str
)
def test_another_encoders_prompts_are_never_used(
    changes: dict[str, object], text_encoder: TextEncoder, folder: Path
) -> None:
    cache(folder, lambda: text_encoder).encode(PROMPTS)
    with pytest.raises(AssertionError, match="was loaded"):
        cache(folder, barred, **changes).encode(PROMPTS[:1])


def test_a_file_under_another_ones_name_is_not_used(text_encoder: TextEncoder, folder: Path) -> None:
    ours, other = cache(folder, lambda: text_encoder), cache(folder, lambda: text_encoder, digest="0b" * 16)
    ours.encode(["a red house"])
    (mine,) = files(folder)
    other.encode(["a blue house"])
    (theirs,) = set(files(folder)) - {mine}
    mine.write_bytes(theirs.read_bytes())
    with torch.no_grad():
        expected = text_encoder.encode(["a red house"])[0]
    assert torch.equal(cache(folder, lambda: text_encoder).encode(["a red house"])[0], expected)
    assert torch.equal(cache(folder, barred).encode(["a red house"])[0], expected)


def flip_last_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def bare(path: Path) -> None:
    save_file({"embedding": torch.zeros(4, 16)}, path)


def other_tensor(path: Path) -> None:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file({"other": torch.zeros(4, 16)}, path, metadata)


@pytest.mark.parametrize("spoil", [flip_last_bit, cut, empty, bare, other_tensor])
def test_a_corrupt_file_is_made_again(
    spoil: Callable[[Path], None], text_encoder: TextEncoder, folder: Path
) -> None:
    good, _ = cache(folder, lambda: text_encoder).encode(PROMPTS[:1])
    (path,) = files(folder)
    spoil(path)
    again, _ = cache(folder, lambda: text_encoder).encode(PROMPTS[:1])
    assert torch.equal(again, good)
    assert torch.equal(cache(folder, barred).encode(PROMPTS[:1])[0], good)
    assert files(folder) == [path]


def full(*_: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_one_warning(
    text_encoder: TextEncoder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.no_grad():
        expected, _ = text_encoder.encode(PROMPTS)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        with pytest.warns(
            UserWarning, match=r"cannot be kept in \S+ \(No space left on device\); [^\n]+ free some space"
        ) as caught:
            embeddings, _ = cache(folder, lambda: text_encoder).encode(PROMPTS)
    assert len(caught) == 1
    assert torch.equal(embeddings, expected)
    assert files(folder) == []


def test_a_folder_that_cannot_be_is_a_warning(text_encoder: TextEncoder, folder: Path) -> None:
    folder.parent.mkdir()
    folder.write_text("a file")
    with pytest.warns(UserWarning, match="cannot be kept in"):
        embeddings, _ = cache(folder, lambda: text_encoder).encode(PROMPTS[:1])
    assert embeddings.shape == (1, 4, 16)


def test_a_cut_prompt_is_told_of_every_time(text_encoder: TextEncoder, folder: Path) -> None:
    long = "red " * 30 + "house"
    for load in (lambda: text_encoder, barred):
        with pytest.warns(
            UserWarning, match="a prompt of 32 tokens is cut to 20; shorten it, or lose"
        ) as caught:
            embeddings, _ = cache(folder, load).encode([long, "a lake"])
        assert len(caught) == 1
        assert embeddings.shape == (2, LENGTH, 16)


def test_the_dtype_is_kept(tiny_folder: Path, folder: Path) -> None:
    half = TextEncoder.from_pretrained(tiny_folder, torch.bfloat16, caption_length=LENGTH)
    first, _ = cache(folder, lambda: half).encode(PROMPTS)
    second, _ = cache(folder, barred).encode(PROMPTS)
    assert first.dtype == second.dtype == torch.bfloat16
    assert torch.equal(first, second)


def test_the_null_embedding_is_no_empty_caption(text_encoder: TextEncoder, folder: Path) -> None:
    expected = text_encoder.null_embedding()
    cache(folder, lambda: text_encoder).encode([""])
    with pytest.raises(AssertionError, match="was loaded"):
        cache(folder, barred).null_embedding()
    assert torch.equal(cache(folder, lambda: text_encoder).null_embedding(), expected)
    assert torch.equal(cache(folder, barred).null_embedding(), expected)


@pytest.mark.parametrize("profile", ["diffusers", "official"])
def test_both_profiles_encode_through_it(profile: str, text_encoder: TextEncoder, folder: Path) -> None:
    def encoded(encoder: object) -> list[torch.Tensor]:
        with torch.no_grad():
            result = encode_prompts(encoder, PROMPTS, "", True, find_profile(profile), None)  # type: ignore[arg-type]
        return [value for value in vars(result).values() if value is not None]

    expected = encoded(text_encoder)
    assert len(expected) == 4
    for load in (lambda: text_encoder, barred):
        assert all(map(torch.equal, encoded(cache(folder, load)), expected))


def test_reading_leaves_nothing_open(text_encoder: TextEncoder, folder: Path) -> None:
    cache(folder, lambda: text_encoder).encode(PROMPTS)
    kept = cache(folder, barred).encode(PROMPTS)
    assert str(folder) not in Path("/proc/self/maps").read_text()
    assert kept[0].shape == (4, 8, 16)
