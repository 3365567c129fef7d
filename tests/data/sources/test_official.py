import json
from pathlib import Path

import pytest

from encoded_pictures import noisy, written
from pixart_sigma.data.record import Record
from pixart_sigma.data.sources import Skipped, official_layout, records
from pixart_sigma.errors import InvalidInput


def item(path: str, **captions: str) -> dict[str, object]:
    return {"width": 1, "height": 1, "ratio": 1.0, "path": path, **captions}


def lay_out(root: Path, items: object) -> Path:
    written(root / "InternImgs/sub/1.png", noisy(20, 30))
    written(root / "InternImgs/2.png", noisy(30, 20))
    written(root / "InternData/data_info.json", json.dumps(items))
    return root


def test_both_captions_are_read(tmp_path: Path) -> None:
    items = [
        item("sub/1.png", prompt="a house", sharegpt4v="The image shows a house."),
        item("2.png", prompt="a cactus", sharegpt4v=""),
        item("missing.png", prompt="nothing"),
        item("2.png", prompt="again"),
        item("../InternData/data_info.json", prompt="outside"),
    ]
    origin = official_layout(lay_out(tmp_path, items))
    assert origin.num_candidates == 5
    outcomes = list(records(origin))
    good = [outcome for outcome in outcomes if isinstance(outcome, Record)]
    assert [record.key for record in good] == ["sub/1.png", "2.png"]
    assert [(caption.source, caption.text) for caption in good[0].captions] == [
        ("prompt", "a house"),
        ("sharegpt4v", "The image shows a house."),
    ]
    assert len(good[1].captions) == 1
    assert (good[0].height, good[0].width) == (20, 30)  # the picture's, not the list's
    kinds = [(outcome.key, outcome.kind) for outcome in outcomes if isinstance(outcome, Skipped)]
    assert kinds == [
        ("missing.png", "corrupt"),
        ("2.png", "duplicate key"),
        ("../InternData/data_info.json", "corrupt"),
    ]


@pytest.mark.parametrize(
    ("items", "message"),
    [({"a": 1}, "is not a list"), ([item("2.png"), {"width": 3}], "picture 1 has no path")],
)
def test_another_list_is_an_error(tmp_path: Path, items: object, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        official_layout(lay_out(tmp_path, items))


def test_another_layout_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="InternImgs/ beside it"):
        official_layout(tmp_path)
    written(lay_out(tmp_path, []) / "InternData/data_info.json", "{")
    with pytest.raises(InvalidInput, match="is not JSON"):
        official_layout(tmp_path)


def test_the_fingerprint_follows_pictures_and_list(tmp_path: Path) -> None:
    items = [item("2.png", prompt="a"), item("missing.png", prompt="b")]
    root = lay_out(tmp_path, items)
    before = official_layout(root).fingerprint
    assert official_layout(root).fingerprint == before
    written(root / "InternImgs/missing.png", noisy())
    assert official_layout(root).fingerprint != before
