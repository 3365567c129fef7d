import itertools
from dataclasses import replace

import pytest

from pixart_sigma.world import (
    Scene,
    Sign,
    Thing,
    dense_caption,
    hallucinated_caption,
    prompt_caption,
    sample_scene,
    short_caption,
)
from pixart_sigma.world.captions import STATEMENTS

SCENES = [sample_scene(seed) for seed in range(1500)]
CACTUS = Scene(
    "desert", "night", "cloudy", "pixel", "single", (Thing("cactus", "green", "small", "left"),), None, 11
)


def stem(kind: str) -> str:
    return "cact" if kind == "cactus" else kind


def test_short_captions_name_every_thing_and_leave_out_much() -> None:
    for scene in SCENES:
        caption = short_caption(scene)
        assert len(caption.split()) <= 32
        assert all(stem(thing.kind) in caption for thing in scene.things)
    whole = [prompt_caption(scene, STATEMENTS) for scene in SCENES]
    shorter = [len(short_caption(scene)) < len(text) for scene, text in zip(SCENES, whole, strict=True)]
    assert sum(shorter) > 0.9 * len(SCENES)


def test_dense_captions_leave_nothing_out() -> None:
    for scene in SCENES:
        caption = dense_caption(scene)
        lower = caption.lower()
        for thing in scene.things:
            assert f"{thing.size} {thing.colour} {stem(thing.kind)}" in lower
            if scene.layout in ("single", "pair", "trio"):
                assert ("in the middle" if thing.place == "middle" else f"on the {thing.place}") in lower
        if scene.sign is not None:
            assert f'{scene.sign.colour} {scene.sign.kind} that says "{scene.sign.text}"' in caption
        assert {
            "flat": "flat drawing",
            "ink": "ink drawing",
            "pixel": "pixel art",
            "gradient": "soft drawing",
        }[scene.style] in caption
        assert 60 <= len(caption.split()) <= 180
    light = {
        scene: dense_caption(replace(scene, time="day")) for scene in SCENES[:50] if scene.time == "night"
    }
    assert all(dense_caption(scene) != by_day for scene, by_day in light.items())


def test_hallucinated_captions_are_often_wrong() -> None:
    wrong = invented = 0
    for scene in SCENES:
        caption = hallucinated_caption(scene)
        said = caption.lower()
        wrong += not all(f"{thing.size} {thing.colour} {stem(thing.kind)}" in said for thing in scene.things)
        invented += "In addition" in caption
    assert 0.3 < wrong / len(SCENES) < 0.7
    assert 0.4 < invented / len(SCENES) < 0.6


def test_a_prompt_states_what_it_is_told_to() -> None:
    assert prompt_caption(CACTUS, frozenset()) == "a cactus with a happy face"
    assert prompt_caption(CACTUS, frozenset({"colour"})) == "a green cactus with a happy face"
    everything = prompt_caption(CACTUS, STATEMENTS)
    assert everything.startswith("a small green cactus with a happy face on the left in ")
    assert everything.endswith(" at night under clouds, pixel art")


@pytest.mark.parametrize(
    ("layout", "places", "said"),
    [
        ("stack", ("top", "bottom"), "a red moon above a blue cat"),
        ("depth", ("front", "back"), "a red moon in front of a blue cat"),
        ("pair", ("left", "right"), "a red moon to the left of a blue cat"),
    ],
)
def test_relations_are_said(layout: str, places: tuple[str, str], said: str) -> None:
    things = (Thing("moon", "red", "small", places[0]), Thing("cat", "blue", "small", places[1]))
    scene = replace(CACTUS, layout=layout, things=things)
    assert prompt_caption(scene, frozenset({"colour", "place"})) == said


def test_counts_and_signs_are_said() -> None:
    scene = replace(CACTUS, layout="row", things=(Thing("cactus", "red", "small", "middle", 3),))
    assert prompt_caption(scene, frozenset({"colour"})) == "three red cacti"
    scene = replace(CACTUS, sign=Sign("banner", "blue", "OPEN", "top"))
    assert prompt_caption(scene, frozenset()) == 'a cactus with a happy face with a banner that says "OPEN"'


def test_a_caption_depends_on_the_scene_alone() -> None:
    for caption in (short_caption, dense_caption, hallucinated_caption):
        assert caption(CACTUS) == caption(CACTUS)


def test_articles_fit_the_next_word() -> None:
    for scene in SCENES:
        words = f"{short_caption(scene)} {dense_caption(scene)} {hallucinated_caption(scene)}".lower().split()
        for first, second in itertools.pairwise(words):
            assert first != "a" or second[0] not in "aeiou"
            assert first != "an" or second[0] in "aeiou"
