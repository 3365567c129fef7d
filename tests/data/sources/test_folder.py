import json
import os
from pathlib import Path

import pytest

from encoded_pictures import noisy, written
from pixart_sigma.data.record import Record
from pixart_sigma.data.sources import Origin, Skipped, image_folder, records
from pixart_sigma.errors import InvalidInput


def found(origin: Origin) -> dict[str, list[tuple[str, str]] | str]:
    """Captions as (source, text), or the kind of the reason, by key."""
    outcomes: dict[str, list[tuple[str, str]] | str] = {}
    for outcome in records(origin):
        if isinstance(outcome, Record):
            outcomes[outcome.key] = [(caption.source, caption.text) for caption in outcome.captions]
        else:
            outcomes[outcome.key] = outcome.kind
    return outcomes


def test_side_files_give_the_captions(tmp_path: Path) -> None:
    written(tmp_path / "b.png", noisy())
    written(tmp_path / "b.txt", "\ufeffa house\nby a lake\n")
    written(tmp_path / "deep" / "er" / "a.JPG", noisy(kind="JPEG"))
    written(
        tmp_path / "deep" / "er" / "a.json",
        json.dumps({"caption": "a cactus", "long": "a big cactus", "id": 3}),
    )
    written(tmp_path / "both.webp", noisy(kind="WEBP"))
    written(tmp_path / "both.txt", "text")
    written(tmp_path / "both.json", '{"prompt": "prompt"}')
    written(tmp_path / ".hidden" / "c.png", noisy())
    written(tmp_path / "notes.txt", "of no picture")
    origin = image_folder(tmp_path)
    assert origin.num_candidates == 3
    assert found(origin) == {
        "b.png": [("text", "a house\nby a lake")],
        "both.webp": [("prompt", "prompt"), ("text", "text")],
        "deep/er/a.JPG": [("caption", "a cactus"), ("long", "a big cactus")],
    }
    assert list(found(origin)) == sorted(found(origin))


def test_lists_in_the_imagefolder_layout_give_the_captions(tmp_path: Path) -> None:
    for name in ("train/1.png", "train/sub/2.png", "test/3.png"):
        written(tmp_path / name, noisy())
    lines = [
        {"file_name": "1.png", "text": "one", "width": 3},
        {"file_name": "sub/2.png", "text": "two", "alt": "2"},
    ]
    written(tmp_path / "train/metadata.jsonl", "\n".join(json.dumps(line) for line in lines) + "\n\n")
    written(tmp_path / "test/metadata.csv", 'file_name,text\n3.png,"three, or 3"\n4.png,four\n')
    assert found(image_folder(tmp_path)) == {
        "train/1.png": [("text", "one")],
        "train/sub/2.png": [("text", "two"), ("alt", "2")],
        "test/3.png": [("text", "three, or 3")],
        "test/4.png": "corrupt",
    }


def test_one_caption_for_all(tmp_path: Path) -> None:
    written(tmp_path / "a.png", noisy())
    written(tmp_path / "a.txt", "its own")
    assert found(image_folder(tmp_path, caption="a photo of sks dog")) == {
        "a.png": [("text", "a photo of sks dog")]
    }


def test_sources_can_be_chosen(tmp_path: Path) -> None:
    written(tmp_path / "a.png", noisy())
    written(tmp_path / "a.json", '{"caption": "a house", "url": "somewhere"}')
    written(tmp_path / "b.png", noisy())
    written(tmp_path / "b.json", '{"url": "somewhere"}')
    assert found(image_folder(tmp_path, sources=("caption",))) == {
        "a.png": [("caption", "a house")],
        "b.png": "no caption",
    }
    with pytest.raises(InvalidInput, match="one of the two"):
        image_folder(tmp_path, caption="a", sources=("caption",))


@pytest.mark.parametrize(
    ("files", "kind", "reason"),
    [
        ({"a.png": noisy()}, "no caption", "neither a.txt nor a.json"),
        ({"a.png": noisy(), "a.txt": "  \n"}, "no caption", "no caption"),
        ({"a.png": noisy(), "a.json": "{"}, "no caption", "is not JSON"),
        ({"a.png": noisy(), "a.json": "[]"}, "no caption", "not an object"),
        ({"a.png": noisy(), "a.txt": b"\xff\xfe\xfa"}, "no caption", "not text in UTF-8"),
        ({"a.png": b"", "a.txt": "a"}, "corrupt", "not a JPEG"),
        ({"a.png": noisy(90, 90)[:900], "a.txt": "a"}, "corrupt", "truncated"),
        ({"metadata.jsonl": '{"file_name": "a.png", "text": "a"}'}, "corrupt", "cannot be read"),
        ({"metadata.jsonl": '{"file_name": "../a.png", "text": "a"}'}, "corrupt", "leaves the folder"),
    ],
)
def test_what_cannot_be_used_is_skipped_with_the_reason(
    tmp_path: Path, files: dict[str, bytes | str], kind: str, reason: str
) -> None:
    written(tmp_path / "in/good.png", noisy())
    written(tmp_path / "in/good.txt", "good")
    for name, content in files.items():
        written(tmp_path / "in" / name, content)
    outcomes = list(records(image_folder(tmp_path / "in")))
    skipped = [outcome for outcome in outcomes if isinstance(outcome, Skipped)]
    assert len(outcomes) == 2
    assert [outcome.kind for outcome in skipped] == [kind]
    assert reason in skipped[0].reason
    assert "\n" not in skipped[0].reason


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.jsonl", '{"file_name": "a.png"}\n{"text": "a"}', "line 2 has no file_name"),
        ("metadata.jsonl", "{", "cannot be read"),
        ("metadata.csv", "image,text\na.png,a", "line 2 has no file_name"),
        ("metadata.csv", b"file_name,text\na.png,\xff", "cannot be read"),
    ],
)
def test_a_broken_list_is_an_error(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    written(tmp_path / name, content)
    with pytest.raises(InvalidInput, match=message) as raised:
        image_folder(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_folder_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="does not exist"):
        image_folder(tmp_path / "none")


def test_the_fingerprint_follows_what_is_read(tmp_path: Path) -> None:
    image = written(tmp_path / "a.png", noisy())
    text = written(tmp_path / "a.txt", "one")
    prints = [image_folder(tmp_path).fingerprint]
    assert image_folder(tmp_path).fingerprint == prints[0]
    written(tmp_path / "notes.txt", "of no picture")
    assert image_folder(tmp_path).fingerprint == prints[0]
    text.write_text("another")
    prints.append(image_folder(tmp_path).fingerprint)
    os.utime(image, (1, 1))
    prints.append(image_folder(tmp_path).fingerprint)
    written(tmp_path / "b.png", noisy())
    prints.append(image_folder(tmp_path).fingerprint)
    prints.append(image_folder(tmp_path, caption="x").fingerprint)
    prints.append(image_folder(tmp_path, caption="y").fingerprint)
    assert len({json.dumps(each, sort_keys=True) for each in prints}) == len(prints)
