import itertools
import random

import pytest

from pixart_sigma.world import Scene, Thing, sample_scene
from pixart_sigma.world.layout import Box, boxes
from pixart_sigma.world.render import BANNER_TOP, BANNER_WIDTH


def placed(layout: str, *things: Thing, width: float = 1.0, background: str = "meadow") -> list[Box]:
    scene = Scene(background, "day", "clear", "ink", layout, things, None, 0)
    return boxes(scene, 1.0, width, random.Random(0))


@pytest.mark.parametrize("width", [1.0, 2.5])
def test_places_follow_the_canvas(width: float) -> None:
    for place, share in (("left", 0.29), ("middle", 0.5), ("right", 0.71)):
        (box,) = placed("single", Thing("ball", "red", "large", place), width=width)
        assert box.x / width == pytest.approx(share, abs=0.03)


def test_relations_are_what_they_say() -> None:
    top, bottom = placed(
        "stack", Thing("sun", "red", "small", "top"), Thing("cat", "blue", "small", "bottom")
    )
    assert top.y < bottom.y - bottom.size
    back, front = placed(
        "depth", Thing("cat", "red", "small", "front"), Thing("car", "blue", "large", "back")
    )
    assert (back.kind, front.kind) == ("car", "cat")
    assert front.y > back.y
    assert abs(front.x - back.x) < (front.size + back.size) / 2


@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_row_has_as_many_as_it_says_and_none_overlap(count: int) -> None:
    row = placed("row", Thing("cup", "red", "small", "middle", count))
    assert len(row) == count
    for left, right in itertools.pairwise(row):
        assert right.x - left.x > (left.size + right.size) / 2 * 0.75


def test_what_hovers_hangs_higher_and_in_space_everything_does() -> None:
    (ball,) = placed("single", Thing("ball", "red", "large", "left"))
    (moon,) = placed("single", Thing("moon", "red", "large", "left"))
    (afloat,) = placed("single", Thing("ball", "red", "large", "left"), background="space")
    assert moon.y < ball.y - 0.1
    assert afloat.y - afloat.size / 2 == pytest.approx(0.5, abs=0.05)


def test_nothing_leaves_the_picture() -> None:
    for seed in range(500):
        for box in boxes(sample_scene(seed), 1.0, 1.0, random.Random(seed)):
            assert box.x - box.size / 2 > -0.03
            assert box.x + box.size / 2 < 1.03
            assert box.y - box.size > 0
            assert box.y < 1


def test_nothing_hides_a_banner() -> None:
    banners = [
        scene for scene in map(sample_scene, range(4000)) if scene.sign and scene.sign.kind == "banner"
    ]
    assert len(banners) > 50
    for scene in banners:
        for box in boxes(scene, 1.0, 1.0, random.Random(scene.seed)):
            assert box.y - box.size > BANNER_TOP + 0.2 * BANNER_WIDTH, scene
