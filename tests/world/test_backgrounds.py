import io
import random
import re
from itertools import product

import numpy as np
import pytest
import resvg_py
from PIL import Image

from pixart_sigma.world.backgrounds import background_svg
from pixart_sigma.world.scene import BACKGROUNDS, STYLES, TIMES_OF, WEATHERS_OF


class Counting(random.Random):
    """Counts what is drawn from it, and allows nothing but `random()`."""

    draws = 0

    def random(self):
        self.draws += 1
        return super().random()

    def getrandbits(self, k):
        raise AssertionError("only random() is stable between Python versions")


def drawn(background, time, weather, style="flat", width=1.0, height=1.0, detail=0, seed=0):
    return background_svg(background, time, weather, style, width, height, detail, random.Random(seed))


def pixels(svg, canvas_height, canvas_width, short=64):
    """(height, width, 4) in [0, 1], transparent where nothing is drawn."""
    view = f'viewBox="0 0 {canvas_width} {canvas_height}" preserveAspectRatio="none"'
    size = f'width="{round(short * canvas_width)}" height="{round(short * canvas_height)}"'
    png = resvg_py.svg_to_bytes(
        svg_string=f'<svg xmlns="http://www.w3.org/2000/svg" {size} {view}>{svg}</svg>',
        skip_system_fonts=True,
    )
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGBA"), dtype=np.float64) / 255


def lights_of(background):
    return list(product(TIMES_OF[background], WEATHERS_OF[background]))


@pytest.mark.parametrize("background", BACKGROUNDS)
@pytest.mark.parametrize(("width", "height"), [(1.0, 1.0), (4.0, 1.0), (1.0, 4.0)])
def test_covers_the_canvas(background, width, height):
    time, weather = lights_of(background)[0]
    for style, detail in product(STYLES, range(3)):
        image = pixels(drawn(background, time, weather, style, width, height, detail), height, width, 16)
        assert (image[..., 3] == 1).all(), (style, detail)


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_draws_once_from_the_generator(background):
    for (time, weather), style, detail in product(lights_of(background), STYLES, range(3)):
        rng = Counting(1)
        background_svg(background, time, weather, style, 1.5, 1.0, detail, rng)
        assert rng.draws == 1


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_a_seed_is_a_picture(background):
    time, weather = lights_of(background)[-1]
    assert drawn(background, time, weather) == drawn(background, time, weather)
    assert drawn(background, time, weather) != drawn(background, time, weather, seed=1)


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_is_short_when_coarse_and_richer_when_fine(background):
    for (time, weather), style in product(lights_of(background), STYLES):
        coarse, medium, fine = (
            len(drawn(background, time, weather, style, detail=detail)) for detail in range(3)
        )
        assert coarse < 8000
        assert coarse < medium < fine


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_detail_adds_to_the_same_picture(background):
    time, weather = lights_of(background)[0]
    coarse, fine = (pixels(drawn(background, time, weather, detail=detail), 1, 1) for detail in (0, 2))
    other = pixels(drawn(background, time, weather, seed=3), 1, 1)
    change, another = abs(coarse - fine).mean(), abs(coarse - other).mean()
    assert 0 < change < 0.03
    assert change < another


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_styles(background):
    """Outlines are ink's alone, gradients are gradient's alone, and pixel has no line that a coarse raster loses."""
    outlined = re.compile(r'fill="#\w+" stroke="#')
    for time, weather in lights_of(background):
        svg = {style: drawn(background, time, weather, style) for style in STYLES}
        assert [style for style in STYLES if outlined.search(svg[style])] == ["ink"]
        assert [style for style in STYLES if "Gradient" in svg[style]] == ["gradient"]
        for path, width in re.findall(r'd="([^"]*)"[^>]*stroke-width="([^"]*)"', svg["pixel"]):
            dots = re.fullmatch(r"(M[^Mh]*h\.001)+", path)
            assert dots or float(width) >= 0.0125, path


def test_equal_gradient_names_have_equal_definitions():
    found = {}
    for background in BACKGROUNDS:
        time, weather = lights_of(background)[0]
        svg = drawn(background, time, weather, "gradient")
        for name, body in re.findall(r'<linearGradient id="(fade[^"]*)"(.*?)</linearGradient>', svg):
            assert found.setdefault(name, body) == body
    assert len(found) > 20


@pytest.mark.parametrize("background", [name for name in BACKGROUNDS if name not in ("space", "room")])
@pytest.mark.parametrize("style", STYLES)
def test_the_sky_tells_the_time(background, style):
    day, sunset, night = (
        pixels(drawn(background, time, "clear", style), 1, 1)[:14, :, :3].mean((0, 1))
        for time in ("day", "sunset", "night")
    )
    assert day[2] > day[1] > day[0] + 0.1
    assert sunset[0] > sunset[2] > sunset[1]
    assert night.mean() < 0.25
    assert night[2] > 1.5 * night[0]


def test_the_room_tells_the_time():
    day, sunset, night = (
        pixels(drawn("room", time, None), 1, 1)[..., :3].mean((0, 1)) for time in TIMES_OF["room"]
    )
    assert day.mean() > sunset.mean() + 0.05 > night.mean() + 0.1
    assert night[2] > night[0]
    assert sunset[0] > sunset[2] + 0.2


def test_backgrounds_differ_in_any_light():
    """At 16 pixels a side, a new drawing is nearest to the mean of its own background, by day, at sunset, by night."""

    def thumbnail(background, time, weather, style, seed):
        return pixels(drawn(background, time, weather, style, seed=seed), 1, 1, 16)[..., :3]

    means, right, total = {}, 0, 0
    for background in BACKGROUNDS:
        for time, weather in lights_of(background):
            seen = [
                thumbnail(background, time, weather, style, seed) for style in STYLES for seed in range(2)
            ]
            means[background, time, weather] = np.mean(seen, axis=0)
    for background in BACKGROUNDS:
        for (time, weather), style in product(lights_of(background), STYLES):
            image = thumbnail(background, time, weather, style, 7)
            nearest = min(means, key=lambda key: np.square(means[key] - image).mean())
            right, total = right + (nearest[:2] == (background, time)), total + 1
    assert right / total > 0.97


@pytest.mark.parametrize("background", [name for name in BACKGROUNDS if "rain" in WEATHERS_OF[name]])
def test_the_sky_tells_the_weather(background):
    for time in TIMES_OF[background]:
        clear, cloudy, rain = (
            pixels(drawn(background, time, weather), 1, 1)[:28, :, :3]
            for weather in ("clear", "cloudy", "rain")
        )
        assert abs(clear - cloudy).mean() > 0.04
        assert abs(clear - rain).mean() > 0.03
        assert abs(cloudy - rain).mean() > 0.04
