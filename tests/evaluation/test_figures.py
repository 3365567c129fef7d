"""What a thing that is missing, and one that is wrong, count for."""

import torch

from pixart_sigma.evaluation.figures import ATTRIBUTE, ATTRIBUTE_SEEN, Observations, figures
from pixart_sigma.evaluation.judges.checker import Reading, ReadThing
from pixart_sigma.evaluation.prompts import Prompt, pocket_prompts


def shares(prompt: Prompt, reading: Reading) -> dict[tuple[str, str], float]:
    seen = Observations((64, 64), torch.zeros(1, 2), None, None, [reading], {})
    return {
        (each.metric, each.part): each.value
        for each in figures("model", [prompt], seen, None, None)
        if each.metric in (ATTRIBUTE, ATTRIBUTE_SEEN)
    }


def two_things() -> tuple[Prompt, dict[str, ReadThing], Reading]:
    prompt = next(each for each in pocket_prompts() if each.group == "two objects")
    scene = prompt.scene
    assert scene is not None
    things = {thing.kind: ReadThing(1, thing.colour, thing.size, thing.place) for thing in scene.things}
    return (
        prompt,
        things,
        Reading(scene.background, scene.time, scene.weather, scene.style, things, None, None),
    )


def test_of_a_missing_thing_everything_is_wrong_and_nothing_is_seen() -> None:
    prompt, things, reading = two_things()
    first = next(iter(things))
    del things[first]
    found = shares(prompt, reading)
    assert found[ATTRIBUTE, "kind"] == found[ATTRIBUTE, "colour"] == found[ATTRIBUTE, "place"] == 0.5
    assert found[ATTRIBUTE_SEEN, "colour"] == found[ATTRIBUTE_SEEN, "place"] == 1
    # Whether it is seen is what the first of the two counts.
    assert (ATTRIBUTE_SEEN, "kind") not in found
    assert (ATTRIBUTE_SEEN, "background") not in found


def test_exchanged_colours_are_wrong_in_both() -> None:
    prompt, things, reading = two_things()
    (one, first), (other, second) = things.items()
    things[one] = ReadThing(1, second.colour, first.size, first.place)
    things[other] = ReadThing(1, first.colour, second.size, second.place)
    found = shares(prompt, reading)
    wrong = float(first.colour == second.colour)
    assert found[ATTRIBUTE, "colour"] == found[ATTRIBUTE_SEEN, "colour"] == wrong
    assert found[ATTRIBUTE, "place"] == found[ATTRIBUTE_SEEN, "place"] == 1
