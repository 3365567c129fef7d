import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from pixart_sigma.world import Scene, Thing, is_held_out, sample_scene
from pixart_sigma.world.scene import (
    BACKGROUNDS,
    COLOURS,
    HELD_OUT_BACKGROUNDS,
    HELD_OUT_COLOURS,
    HOVERING,
    KINDS,
    MAX_COUNT,
    NATURAL_COLOUR,
    PLACES,
    SIZES,
    STYLES,
    TIMES_OF,
    WEATHERS_OF,
)

SCENES = [sample_scene(seed) for seed in range(6000)]


def test_a_seed_names_a_scene() -> None:
    assert sample_scene(7) == sample_scene(7)
    assert len({replace(scene, seed=0) for scene in SCENES}) > 5000


def test_scenes_do_not_change_between_versions() -> None:
    # Recipes and held-out sets name scenes by seed: a change here silently changes every one of them.
    thing = Thing("car", "green", "small", "middle", 3)
    assert sample_scene(0) == Scene("space", None, None, "ink", "row", (thing,), None, 0)
    assert sample_scene(1_000_000_000).truth()["things"]


@pytest.mark.parametrize(
    ("values", "of"),
    [
        (BACKGROUNDS, lambda scene: scene.background),
        (STYLES, lambda scene: scene.style),
        (KINDS, lambda scene: scene.things[0].kind),
        (COLOURS, lambda scene: scene.things[0].colour),
        (SIZES, lambda scene: scene.things[0].size),
    ],
)
def test_every_value_occurs_about_evenly(values: tuple[str, ...], of: Callable[[Scene], str]) -> None:
    counts = Counter(of(scene) for scene in SCENES)
    assert set(counts) == set(values)
    assert min(counts.values()) > len(SCENES) / len(values) / 2


def test_every_place_count_and_light_occurs() -> None:
    things = [thing for scene in SCENES for thing in scene.things]
    assert {thing.place for thing in things} == set(PLACES)
    assert {thing.count for thing in things} == set(range(1, MAX_COUNT + 1))
    lights = {(scene.background, scene.time, scene.weather) for scene in SCENES}
    possible = {
        (name, time, weather)
        for name in BACKGROUNDS
        for time, weather in itertools.product(TIMES_OF[name], WEATHERS_OF[name])
    }
    assert lights == possible


def test_a_kind_occurs_once_and_only_what_hovers_is_on_top() -> None:
    for scene in SCENES:
        kinds = [thing.kind for thing in scene.things]
        assert len(set(kinds)) == len(kinds)
        assert all(thing.kind in HOVERING for thing in scene.things if thing.place == "top")


def test_a_tenth_of_the_pairs_is_held_out_and_never_drawn_for_training() -> None:
    assert len(HELD_OUT_COLOURS) == round(0.1 * len(KINDS) * len(COLOURS))
    assert len(HELD_OUT_BACKGROUNDS) == round(0.1 * len(KINDS) * len(BACKGROUNDS))
    assert not HELD_OUT_COLOURS & set(NATURAL_COLOUR.items())
    assert not any(is_held_out(scene) for scene in SCENES)
    seen = {(thing.kind, thing.colour) for scene in SCENES for thing in scene.things}
    assert seen == set(itertools.product(KINDS, COLOURS)) - HELD_OUT_COLOURS
    seen = {(thing.kind, scene.background) for scene in SCENES for thing in scene.things}
    assert seen == set(itertools.product(KINDS, BACKGROUNDS)) - HELD_OUT_BACKGROUNDS


def test_judges_see_every_pair() -> None:
    scenes = [sample_scene(seed, all_pairs=True) for seed in range(6000)]
    seen = {(thing.kind, thing.colour) for scene in scenes for thing in scene.things}
    assert seen == set(itertools.product(KINDS, COLOURS))
    assert any(is_held_out(scene) for scene in scenes)
