import numpy as np
import pytest

from pixart_sigma.world import Scene, Thing, render, sample_scene
from pixart_sigma.world.objects import PAINTS
from pixart_sigma.world.scene import BACKGROUNDS, COLOURS, KINDS


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 224), (224, 96), (512, 512)])
def test_any_size_and_aspect_ratio(height: int, width: int) -> None:
    pixels = render(sample_scene(3), height, width)
    assert pixels.shape == (height, width, 3)
    assert pixels.dtype == np.uint8


def test_the_same_scene_gives_the_same_bytes() -> None:
    np.testing.assert_array_equal(render(sample_scene(5), 128, 128), render(sample_scene(5), 128, 128))


def test_a_larger_picture_shows_the_same_scene() -> None:
    small = render(sample_scene(9), 64, 64).astype(float)
    large = render(sample_scene(9), 256, 256).astype(float).reshape(64, 4, 64, 4, 3).mean((1, 3))
    assert np.abs(small - large).mean() < 4


def test_things_keep_their_proportions_in_a_wide_picture() -> None:
    def painted(height: int, width: int) -> tuple[int, int]:
        pixels = render(
            Scene("meadow", (Thing("ball", "purple", "large", "centre"),), 1), height, width
        ).astype(int)
        near = np.abs(pixels - [0x8A, 0x3F, 0xD0]).sum(-1) < 30
        rows, columns = np.flatnonzero(near.any(1)), np.flatnonzero(near.any(0))
        return int(np.ptp(rows)), int(np.ptp(columns))

    assert painted(128, 128) == pytest.approx(painted(128, 384), abs=2)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_drawn_in_its_colour_and_place(kind: str) -> None:
    for colour in COLOURS:
        left, right = (
            render(Scene("city", (Thing(kind, colour, "large", place),), 2), 128, 128).astype(int)
            for place in ("left", "right")
        )
        base = [int(PAINTS[colour].base[i : i + 2], 16) for i in (1, 3, 5)]
        painted = np.abs(left - base).sum(-1) < 40
        assert painted[:, :64].sum() > painted[:, 64:].sum()
        assert painted.sum() > 150
        painted = np.abs(right - base).sum(-1) < 40
        assert painted[:, 64:].sum() > painted[:, :64].sum()


def test_backgrounds_differ() -> None:
    pictures = [render(Scene(name, (), 1), 64, 64).astype(float) for name in BACKGROUNDS]
    for i, first in enumerate(pictures):
        for second in pictures[i + 1 :]:
            assert np.abs(first - second).mean() > 15
