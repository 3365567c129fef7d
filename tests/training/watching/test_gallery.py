import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from pixart_sigma.training.watching.gallery import first_middle_last, gather_pictures, step_pictures


def save(output: Path, name: str, size: tuple[int, int] = (32, 16)) -> None:
    (output / "samples").mkdir(exist_ok=True)
    Image.new("RGB", size, (200, 30, 30)).save(output / "samples" / name)


def test_first_middle_and_last_are_embedded_and_the_others_linked(tmp_path: Path) -> None:
    for step in (100, 200, 300, 400, 900, 1000):
        save(tmp_path, f"step-{step:08d}.png")
    embedded, linked = gather_pictures(tmp_path)
    assert [picture.step for picture in embedded] == [100, 400, 1000]
    assert [picture.link for picture in linked] == [
        f"samples/step-{step:08d}.png" for step in (200, 300, 900)
    ]
    kind, _, content = (embedded[0].data or "").partition(";base64,")
    assert kind == "data:image/webp"
    with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
        assert picture.size == (32, 16) == (embedded[0].width, embedded[0].height)
        red, green, blue = picture.convert("RGB").getpixel((5, 5))
    assert abs(red - 200) < 8 > abs(green - 30)
    assert abs(blue - 30) < 8


def test_several_pictures_of_a_step_go_together(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        for size in (128, 256):
            save(tmp_path, f"step-{step:08d}-{size}.png")
    embedded, linked = gather_pictures(tmp_path)
    assert [(picture.step, picture.label) for picture in embedded[:2]] == [(1, "128"), (1, "256")]
    assert (len(embedded), len(linked)) == (6, 2)


def test_a_large_picture_is_made_smaller(tmp_path: Path) -> None:
    save(tmp_path, "step-00000001.png", (4000, 1000))
    (picture,), _ = gather_pictures(tmp_path)
    assert (picture.width, picture.height) == (1600, 400)


def test_what_is_no_picture_of_a_step_is_left_out(tmp_path: Path) -> None:
    save(tmp_path, "step-00000001.png")
    (tmp_path / "samples/step-00000002.png").write_bytes(b"\x89PNG broken")
    (tmp_path / "samples/step-00000003.txt").write_text("looked")
    save(tmp_path, "other.png")
    embedded, linked = gather_pictures(tmp_path)
    assert ([picture.step for picture in embedded], linked) == ([1], [])
    assert gather_pictures(tmp_path / "none") == ([], [])


def test_the_pictures_of_one_step_are_found_for_the_trackers(tmp_path: Path) -> None:
    for name in ("step-00000010.png", "step-00000020-128.png", "step-00000020-256.png"):
        save(tmp_path, name)
    samples = tmp_path / "samples"
    assert step_pictures(tmp_path, 10) == {"grid": samples / "step-00000010.png"}
    assert step_pictures(tmp_path, 20) == {
        "128": samples / "step-00000020-128.png",
        "256": samples / "step-00000020-256.png",
    }
    assert step_pictures(tmp_path, 30) == {}


@pytest.mark.parametrize(
    ("steps", "chosen"), [([], []), ([5], [5]), ([5, 9], [5, 9]), ([0, 10, 80, 100], [0, 80, 100])]
)
def test_the_middle_is_that_of_the_run_and_not_of_the_list(steps: list[int], chosen: list[int]) -> None:
    assert sorted(first_middle_last(steps)) == chosen
