import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from pixart_sigma.training.watching.curves import Curves, draw
from pixart_sigma.training.watching.series import Series

STEPS = np.arange(10.0, 1010.0, 10.0)
LOSS = Series(STEPS, 0.3 + 0.1 * np.cos(STEPS / 50))


def labels(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def drawn(svg: str, color: str) -> int:
    return len(re.findall(rf"stroke: var\(--{color}\)", svg))


def test_a_chart_is_svg_in_the_colours_of_the_page() -> None:
    svg = draw(Curves(LOSS, Series(STEPS[::20], LOSS.values[::20])), 400, 230)
    root = ElementTree.fromstring(svg)
    assert root.attrib == {"viewBox": "0 0 400 230", "version": "1.1"}
    assert not re.search(r"#[0-9a-f]{6}|font-family|http://(?!www\.w3\.org)", svg)
    assert (drawn(svg, "training"), drawn(svg, "validation")) == (2, 1)
    assert labels(svg)[:5] == ["0", "250", "500", "750", "1,000"]


def test_the_same_curves_make_the_same_file() -> None:
    assert draw(Curves(LOSS), 400, 230) == draw(Curves(LOSS), 400, 230)


def test_a_planned_figure_is_one_line_and_a_resume_is_marked() -> None:
    plain = draw(Curves(LOSS, smoothed=False), 400, 230)
    assert drawn(plain, "training") == 1
    assert "stroke-dasharray" not in plain
    assert "stroke-dasharray" in draw(Curves(LOSS, marks=[500]), 400, 230)


def test_a_long_fall_is_drawn_logarithmically_unless_it_may_not_be() -> None:
    fall = Series(STEPS, np.geomspace(100, 0.1, len(STEPS)))
    assert {"0.1", "1", "10", "100"} <= set(labels(draw(Curves(fall), 400, 230)))
    assert "0.1" not in labels(draw(Curves(fall, may_be_logarithmic=False), 400, 230))
    assert labels(draw(Curves(Series(STEPS, fall.values - 0.1)), 400, 230))[-1] == "100"


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 1e-30, 1e30])
def test_a_figure_that_never_changes_is_drawn_too(value: float) -> None:
    ElementTree.fromstring(draw(Curves(Series(STEPS, np.full_like(STEPS, value))), 400, 230))


def test_validation_alone_makes_a_chart() -> None:
    svg = draw(Curves(None, LOSS), 400, 230)
    assert (drawn(svg, "training"), drawn(svg, "validation")) == (0, 1)


def test_a_long_run_makes_no_long_file() -> None:
    steps = np.arange(1.0, 200_001.0)
    noise = np.random.default_rng(0).normal(size=len(steps))
    assert len(draw(Curves(Series(steps, noise)), 760, 290)) < 150_000
