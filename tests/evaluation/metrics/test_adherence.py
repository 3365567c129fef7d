from dataclasses import replace

import pytest

from pixart_sigma.evaluation.judges.checker import Reading, ReadThing
from pixart_sigma.evaluation.metrics.adherence import ATTRIBUTES, Verdict, judge
from pixart_sigma.evaluation.prompts import pocket_prompts
from pixart_sigma.world import Scene, Sign, Thing
from true_reading import true_reading

PAIR = Scene(
    "beach",
    "night",
    "rain",
    "ink",
    "pair",
    (Thing("cat", "red", "small", "left"), Thing("car", "blue", "large", "right")),
    None,
    1,
)
EVERYTHING = frozenset({"background", "colour", "place", "size", "style", "time", "weather"})


def wrong(scene: Scene, stated: frozenset[str], reading: Reading) -> set[tuple[str, str | None]]:
    return {(one.attribute, one.kind) for one in judge(scene, stated, reading) if not one.right}


def test_the_truth_is_right_in_every_respect() -> None:
    seen = set()
    for prompt in pocket_prompts():
        assert prompt.scene is not None
        verdicts = judge(prompt.scene, prompt.stated, true_reading(prompt.scene))
        assert all(one.right for one in verdicts)
        seen |= {one.attribute for one in verdicts}
    assert seen == set(ATTRIBUTES)


@pytest.mark.parametrize("attribute", ["background", "time", "weather", "style"])
def test_what_is_said_of_the_picture_counts_only_if_it_is_stated(attribute: str) -> None:
    other = replace(true_reading(PAIR), **{attribute: "other"})
    assert wrong(PAIR, EVERYTHING, other) == {(attribute, None)}
    assert wrong(PAIR, EVERYTHING - {attribute}, other) == set()


@pytest.mark.parametrize("attribute", ["colour", "size", "place"])
def test_what_is_said_of_a_thing_counts_only_if_it_is_stated(attribute: str) -> None:
    reading = true_reading(PAIR)
    things = dict(reading.things)
    things["cat"] = replace(things["cat"], **{attribute: "other"})
    other = replace(reading, things=things)
    assert wrong(PAIR, EVERYTHING, other) == {(attribute, "cat")}
    assert wrong(PAIR, EVERYTHING - {attribute}, other) == set()


def test_kinds_and_counts_are_always_stated_and_more_things_do_not_count() -> None:
    reading = true_reading(PAIR)
    things = dict(reading.things) | {"cat": replace(reading.things["cat"], count=2)}
    assert wrong(PAIR, frozenset(), replace(reading, things=things)) == {("count", "cat")}
    alone = {"car": reading.things["car"]}
    assert wrong(PAIR, frozenset(), replace(reading, things=alone)) == {("kind", "cat"), ("count", "cat")}
    more = dict(reading.things) | {"sun": ReadThing(1, "red", "small", "top")}
    assert wrong(PAIR, EVERYTHING, replace(reading, things=more)) == set()


def test_nothing_of_a_thing_that_is_not_seen_is_right() -> None:
    reading = replace(true_reading(PAIR), things={})
    verdicts = [one for one in judge(PAIR, EVERYTHING, reading) if one.kind == "cat"]
    assert [(one.attribute, one.read) for one in verdicts] == [
        ("kind", None),
        ("count", None),
        ("colour", None),
        ("size", None),
        ("place", None),
    ]
    assert not any(one.right for one in verdicts)


def test_a_relation_is_stated_even_where_places_are_not() -> None:
    things = (Thing("sun", "red", "small", "top"), Thing("cat", "blue", "small", "bottom"))
    stack = replace(PAIR, layout="stack", things=things)
    reading = true_reading(stack)
    swapped = {
        kind: replace(reading.things[kind], place=place)
        for kind, place in (("sun", "bottom"), ("cat", "top"))
    }
    assert wrong(stack, frozenset(), replace(reading, things=swapped)) == {("place", "sun"), ("place", "cat")}


def test_a_row_has_no_place_and_an_absent_light_is_not_stated() -> None:
    row = replace(
        PAIR,
        background="space",
        time=None,
        weather=None,
        layout="row",
        things=(Thing("cat", "red", "small", "middle", 3),),
    )
    attributes = [one.attribute for one in judge(row, EVERYTHING, true_reading(row))]
    assert attributes == ["kind", "count", "colour", "size", "background", "style"]


def test_a_sign_is_always_stated_and_its_colour_as_other_colours() -> None:
    scene = replace(PAIR, sign=Sign("banner", "pink", "SHOP", "top"))
    reading = replace(true_reading(scene), sign="sign", sign_colour="red")
    assert wrong(scene, frozenset(), reading) == {("sign", None)}
    assert wrong(scene, frozenset({"colour"}), reading) == {("sign", None), ("sign_colour", None)}
    assert Verdict("sign", None, "banner", "sign") in judge(scene, frozenset(), reading)
