import io
import random
import re
from itertools import product

import numpy as np
import pytest
import resvg_py
from PIL import Image

from pixart_sigma.world.scene import STYLES, WEATHERS
from pixart_sigma.world.weather import weather_svg


def over(colour, weather, style="flat", detail=0, short=128, width=1.0, height=1.0):
    """The weather over a plain colour, (height, width, 3) in [0, 1]."""
    svg = weather_svg(weather, width, height, style, detail, random.Random(0))
    size = f'width="{round(short * width)}" height="{round(short * height)}" viewBox="0 0 {width} {height}"'
    ground = f'<rect width="{width}" height="{height}" fill="{colour}"/>'
    png = resvg_py.svg_to_bytes(
        svg_string=f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{ground}{svg}</svg>',
        skip_system_fonts=True,
    )
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGB"), dtype=np.float64) / 255


@pytest.mark.parametrize("weather", [None, "clear", "cloudy"])
def test_nothing_falls_from_a_dry_sky(weather):
    assert weather_svg(weather, 1, 1, "ink", 2, random.Random(0)) == ""


def test_draws_once_from_the_generator():
    expected = random.Random(3)
    expected.random()
    for weather, style, detail in product((None, *WEATHERS), STYLES, range(3)):
        rng = random.Random(3)
        weather_svg(weather, 1, 2, style, detail, rng)
        assert rng.getstate() == expected.getstate()


@pytest.mark.parametrize("weather", ["rain", "snowfall"])
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("colour", ["#202d69", "#8797aa", "#d9bfdc"])
def test_is_seen_at_128_pixels_and_hides_little(weather, style, colour):
    """On a night sky, a rainy sky and a drift of snow at sunset."""
    ground = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    changed = abs(over(colour, weather, style) - ground).max(-1) > 0.1
    assert 0.01 < changed.mean() < 0.12


@pytest.mark.parametrize("weather", ["rain", "snowfall"])
def test_falls_everywhere_at_any_aspect_ratio(weather):
    for width, height in ((4.0, 1.0), (1.0, 4.0)):
        changed = abs(
            over("#202d69", weather, width=width, height=height)
            - over("#202d69", None, width=width, height=height)
        )
        tiles = changed.max(-1).reshape(round(2 * height), 64, round(2 * width), 64)
        assert (tiles.max((1, 3)) > 0.2).all()


def test_detail_adds_fine_strokes():
    for weather in ("rain", "snowfall"):
        coarse, medium, fine = (
            weather_svg(weather, 1, 1, "flat", detail, random.Random(0)) for detail in range(3)
        )
        assert len(coarse) < 3000
        assert len(coarse) < len(medium) < len(fine)


def test_pixel_rain_is_broad():
    widths = re.findall(r'stroke-width="([^"]*)"', weather_svg("rain", 1, 1, "pixel", 0, random.Random(0)))
    assert widths
    assert min(map(float, widths)) >= 0.0125
