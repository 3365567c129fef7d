from dataclasses import replace

import numpy as np
import pytest

from pixart_sigma.world import Scene, Sign, Thing, render, sample_scene, scene_svg
from pixart_sigma.world.objects import PAINTS
from pixart_sigma.world.render import PIXEL_GRID
from pixart_sigma.world.scene import BACKGROUNDS, COLOURS, KINDS, STYLES

BALL = Scene(
    "meadow", "day", "clear", "flat", "single", (Thing("ball", "purple", "large", "middle"),), None, 1
)


def near(pixels: np.ndarray, colour: str, limit: int = 40) -> np.ndarray:
    """Where pixels have about the base tone of a colour: (height, width) bool."""
    base = [int(PAINTS[colour].base[i : i + 2], 16) for i in (1, 3, 5)]
    return np.abs(pixels.astype(int) - base).sum(-1) < limit


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 224), (224, 96), (512, 512)])
def test_any_size_and_aspect_ratio(height: int, width: int) -> None:
    for seed in range(4):
        pixels = render(sample_scene(seed), height, width)
        assert pixels.shape == (height, width, 3)
        assert pixels.dtype == np.uint8


def test_the_same_scene_gives_the_same_bytes() -> None:
    np.testing.assert_array_equal(render(sample_scene(5), 128, 128), render(sample_scene(5), 128, 128))


@pytest.mark.parametrize("style", STYLES)
def test_a_larger_picture_shows_the_same_scene(style: str) -> None:
    scene = replace(sample_scene(9), style=style)
    small = render(scene, 64, 64).astype(float)
    large = render(scene, 512, 512).astype(float).reshape(64, 8, 64, 8, 3).mean((1, 3))
    assert np.abs(small - large).mean() < 8


@pytest.mark.parametrize("style", ["flat", "ink", "gradient"])
def test_a_larger_picture_shows_more(style: str) -> None:
    scene = replace(BALL, style=style, things=(Thing("house", "red", "large", "middle"),))
    lengths = [len(scene_svg(scene, size, size)) for size in (256, 512, 1024)]
    assert lengths[0] < lengths[1] < lengths[2]


def test_pixel_art_has_square_pixels() -> None:
    pixels = render(replace(BALL, style="pixel"), 256, 384)
    block = 256 // PIXEL_GRID
    coarse = pixels[::block, ::block]
    np.testing.assert_array_equal(pixels, coarse.repeat(block, 0).repeat(block, 1))


def test_things_keep_their_proportions_in_a_wide_picture() -> None:
    def painted(height: int, width: int) -> tuple[int, int]:
        found = near(render(BALL, height, width), "purple")
        return int(np.ptp(np.flatnonzero(found.any(1)))), int(np.ptp(np.flatnonzero(found.any(0))))

    assert painted(128, 128) == pytest.approx(painted(128, 384), abs=2)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_drawn_in_its_colour_and_place(kind: str) -> None:
    for colour in COLOURS:
        scene = replace(BALL, background="city", things=(Thing(kind, colour, "large", "left"),))
        empty = near(render(replace(scene, things=()), 128, 128), colour)
        left = near(render(scene, 128, 128), colour) & ~empty
        right_scene = replace(scene, things=(Thing(kind, colour, "large", "right"),))
        right = near(render(right_scene, 128, 128), colour) & ~empty
        assert left.sum() > 150
        assert left[:, :64].sum() > left[:, 64:].sum()
        assert right[:, 64:].sum() > right[:, :64].sum()


def test_backgrounds_and_styles_differ() -> None:
    empty = [replace(BALL, background=name, things=()) for name in BACKGROUNDS]
    styled = [replace(BALL, style=style) for style in STYLES]
    for scenes, least in ((empty, 12), (styled, 2)):
        pictures = [render(scene, 128, 128).astype(float) for scene in scenes]
        for i, first in enumerate(pictures):
            for second in pictures[i + 1 :]:
                assert np.abs(first - second).mean() > least


@pytest.mark.parametrize("kind", ["sign", "banner"])
def test_signs_are_drawn(kind: str) -> None:
    sign = Sign(kind, "red", "OPEN", "right" if kind == "sign" else "top")
    with_sign, without = (render(replace(BALL, sign=each), 128, 128) for each in (sign, None))
    assert (near(with_sign, "red") & ~near(without, "red")).sum() > 100
