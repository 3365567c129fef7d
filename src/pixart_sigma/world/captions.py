"""A scene in words: the short caption (like alt text, incomplete) and the dense one (everything).

Both are functions of the scene alone: the choice of words follows the scene's seed.
"""

from __future__ import annotations

import random

from pixart_sigma.world.scene import NATURAL_COLOUR, Scene, Thing, pick

FACED = ("cactus",)
"""Kinds that are drawn with a happy face."""

_WHERE = {
    "desert": ("in the desert", "in a desert"),
    "meadow": ("on a meadow", "in a green meadow"),
    "snow": ("in the snow", "in a snowy landscape"),
    "beach": ("on the beach", "at the beach"),
    "city": ("in the city", "in a city street"),
    "space": ("in space", "in outer space"),
}
_BACKDROP = {
    "desert": "a desert with sand dunes under a warm pale sky",
    "meadow": "a green meadow with soft hills under a blue sky",
    "snow": "a snowy landscape with white hills and distant mountains",
    "beach": "a sandy beach with the blue sea behind it",
    "city": "a city street with grey buildings and windows",
    "space": "outer space, dark, with small stars and a planet",
}
_PLACE = {"left": "on the left", "centre": "in the middle", "right": "on the right"}


def article(noun_phrase: str) -> str:
    """The phrase with its indefinite article."""
    return f"{'an' if noun_phrase[0] in 'aeiou' else 'a'} {noun_phrase}"


def describe(thing: Thing, *, size: bool, colour: bool, face: bool) -> str:
    """A noun phrase such as "a small green cactus with a happy face"."""
    words = [thing.size] * size + [thing.colour] * colour + [thing.kind]
    return article(" ".join(words)) + " with a happy face" * (face and thing.kind in FACED)


def short_caption(scene: Scene) -> str:
    """Up to about twenty words. May leave out size, place, and a colour where it is the natural one."""
    rng = random.Random(f"short {scene.seed}")
    phrases = []
    for thing in scene.things:
        plain = thing.colour == NATURAL_COLOUR[thing.kind]
        phrase = describe(
            thing,
            size=rng.random() < 0.6,
            colour=not plain or rng.random() < 0.5,
            face=rng.random() < 0.7,
        )
        phrases.append((phrase, _PLACE[thing.place]))
    where = pick(rng, _WHERE[scene.background])
    with_place = rng.random() < 0.6
    if len(phrases) == 1:
        phrase, place = phrases[0]
        return f"{phrase} {place} {where}" if with_place else f"{phrase} {where}"
    (first, left), (second, right) = phrases
    if with_place:
        return f"{first} {left} and {second} {right} {where}"
    return f"{first} and {second} {where}"


def dense_caption(scene: Scene) -> str:
    """Three or four sentences, about twenty-five to fifty words, that leave nothing out."""
    rng = random.Random(f"dense {scene.seed}")
    opening = pick(rng, ("The picture shows", "This is a drawing of", "We see"))
    sentences = [f"{opening} {_BACKDROP[scene.background]}."]
    for thing in scene.things:
        subject = describe(thing, size=True, colour=True, face=True)
        place = _PLACE[thing.place]
        floats = scene.background == "space" or thing.kind == "balloon"
        verb = "floats" if floats else pick(rng, ("stands", "is"))
        if rng.random() < 0.5:
            sentences.append(f"{place.capitalize()} {verb} {subject}.")
        else:
            sentences.append(f"{subject.capitalize()} {verb} {place}.")
    sentences.append(
        pick(rng, ("The style is a flat drawing with dark outlines.", "It is drawn with clean outlines."))
    )
    return " ".join(sentences)
