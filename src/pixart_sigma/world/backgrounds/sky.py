"""The sky: the time of day by its colours, the weather by its clouds.

Knows nothing of the ground below. There is no sun, moon or star in it: those are things.
"""

from __future__ import annotations

from pixart_sigma.world.backgrounds.canvas import GROUND, MARGIN, Canvas, fade, lines, mix, patch
from pixart_sigma.world.backgrounds.land import below, crest
from pixart_sigma.world.backgrounds.scatter import scatter
from pixart_sigma.world.paths import box, speck

SKIES = {
    "day": ("#4fa9ee", "#83c7f6", "#c3e8fb"),
    "sunset": ("#b8629f", "#f27f86", "#ffc06c"),
    "night": ("#141b4b", "#202d69", "#344a86"),
}
"""Colours from the top of the sky to the horizon."""

_GREYS = {"day": "#8a98a8", "sunset": "#8a6a80", "night": "#262b45"}
_GREY_SHARES = {"clear": 0.0, "cloudy": 0.12, "rain": 0.58, "snowfall": 0.55}
_CLOUDS = {"day": "#ffffff", "sunset": "#ffd9d0", "night": "#6676ad"}
_BANKS = {"day": "#6c7a8c", "sunset": "#75546f", "night": "#3a4164"}
_PUFFS = "M-.16.05C-.23.05-.22-.05-.14-.04-.15-.13-.02-.15.01-.08.07-.13.15-.07.13-.01.21-.02.21.05.15.05z"
_SHADE = "M-.16.05C-.21.05-.22 0-.19-.02-.14.03-.05.01-.01.02.05.03.14.03.185.02.18.04.17.05.15.05z"


def sky_colours(time: str, weather: str | None) -> tuple[str, str, str]:
    """The sky's colours from the top to the horizon."""
    share = _GREY_SHARES[weather or "clear"]
    top, middle, low = (mix(colour, _GREYS[time], share) for colour in SKIES[time])
    return top, middle, low


def sky(canvas: Canvas) -> str:
    """A sky that fills the canvas: bands of colour, tiny dots of light by night, clouds by the weather."""
    assert canvas.time is not None
    top, middle, low = sky_colours(canvas.time, canvas.weather)
    parts = [air(canvas, top, middle, low)]
    if canvas.time == "night" and canvas.weather in ("clear", "cloudy"):
        parts.append(lights(canvas, 22 * 2**canvas.detail, GROUND * canvas.height))
    if canvas.weather in ("rain", "snowfall"):
        parts.append(_bank(canvas))
    if canvas.weather == "cloudy":
        parts.append(_clouds(canvas))
    return "".join(parts)


def air(canvas: Canvas, top: str, middle: str, low: str) -> str:
    """Three colours from the top to the horizon: a smooth change in gradient, else bands."""
    whole = box(0, 0, canvas.width, canvas.height)
    if canvas.style == "gradient":
        stops = "".join(
            f'<stop offset="{offset}" stop-color="{colour}"/>'
            for offset, colour in ((0, top), (0.36, middle), (GROUND, low))
        )
        definition = f'<linearGradient id="air" x2="0" y2="1">{stops}</linearGradient>'
        return definition + patch(whole, "url(#air)")
    bands = ((0.24, 0.02, middle), (0.45, 0.015, low))
    return patch(whole, top) + "".join(
        patch(below(canvas, crest(canvas, f"band {level}", level, swing, 0.6)), colour)
        for level, swing, colour in bands
    )


def lights(canvas: Canvas, count: int, height: float) -> str:
    """About `count` tiny dots for each unit of area, down to `height`; every fifth is brighter."""
    points = scatter(canvas.stream("lights"), round(count * canvas.width * height))
    d = [speck(x * canvas.width, y * height) for x, y in points]
    bright, faint = "".join(d[::5]), "".join(d[i] for i in range(len(d)) if i % 5)
    return lines(faint, "#aebbf0", 0.008 if canvas.detail == 0 else 0.005) + lines(bright, "#fff6d8", 0.012)


def _clouds(canvas: Canvas) -> str:
    rng = canvas.stream("clouds")
    count = max(4, round(4 * canvas.width * canvas.height**0.7))
    return "".join(
        _cloud(canvas, x * canvas.width, (0.1 + 0.32 * y) * canvas.height, 0.85 + 0.5 * rng.random())
        for x, y in scatter(rng, count)
    )


def _cloud(canvas: Canvas, x: float, y: float, scale: float) -> str:
    assert canvas.time is not None
    colour = _CLOUDS[canvas.time]
    shade = mix(colour, sky_colours(canvas.time, None)[0], 0.32)
    place = f'<g transform="translate({x:.3f} {y:.3f}) scale({scale:.3f})">'
    if canvas.style == "gradient":
        definition, fill = fade(colour, shade)
        return f"{definition}{place}{patch(_PUFFS, fill)}</g>"
    curls = ""
    if canvas.detail:
        curls = lines("M-.1-.055Q-.06-.09-.03-.05M.02-.03Q.07-.06.09-.02", shade, 0.008)
    return f"{place}{canvas.shape(_PUFFS, colour)}{patch(_SHADE, shade)}{curls}</g>"


def _bank(canvas: Canvas) -> str:
    """Heavy cloud along the top of the picture, dark for rain and pale for snow."""
    assert canvas.time is not None
    colour = _BANKS[canvas.time]
    if canvas.weather == "snowfall":
        colour = mix(colour, _CLOUDS[canvas.time], 0.5)
    rng = canvas.stream("bank")
    parts = []
    for depth, tint in ((0.15, 0.0), (0.08, 0.22)):
        count = max(3, round(canvas.width / (0.17 + 0.05 * rng.random())))
        step = (canvas.width + 4 * MARGIN) / count
        start = -2 * MARGIN - 0.1 * rng.random()
        d = f"M{start:.4g} {-MARGIN}V{depth * canvas.height**0.6:.4g}"
        for _ in range(count + 1):
            d += f"a{step / 2:.4g} {0.05 + 0.07 * rng.random():.4g} 0 0 0 {step:.4g} 0"
        parts.append(canvas.shape(f"{d}V{-MARGIN}z", mix(colour, _CLOUDS[canvas.time], tint)))
    return "".join(parts)
