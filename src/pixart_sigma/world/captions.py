"""A scene in words: a short caption (like alt text, incomplete), a dense one (everything), and one with mistakes.

All are functions of the scene alone: the choice of words follows the scene's seed. `prompt_caption` says just what it
is told to. Knows nothing of pictures.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from pixart_sigma.world.scene import COLOURS, HOVERING, KINDS, NATURAL_COLOUR, SIZES, Scene, Sign, Thing, pick

STATEMENTS = frozenset({"background", "colour", "place", "size", "style", "time", "weather"})
"""What a prompt may state beside kinds, counts and the words of a sign."""

_PLURALS = {"cactus": "cacti"}
_NUMBERS = {2: "two", 3: "three", 4: "four"}
_WHERE = {
    "desert": ("in the desert", "in a desert"),
    "meadow": ("on a meadow", "in a green meadow"),
    "snow": ("in the snow", "in a snowy landscape"),
    "beach": ("on the beach", "at the beach"),
    "lake": ("at a lake", "by the lake"),
    "city": ("in the city", "in a city street"),
    "space": ("in space", "in outer space"),
    "room": ("in a room", "inside a room"),
}
_BACKDROP = {
    "desert": "a desert with sand dunes and red rocks",
    "meadow": "a green meadow with soft hills and a fence",
    "snow": "a snowy landscape with white ground and distant mountains",
    "beach": "a sandy beach with the sea behind it",
    "lake": "a calm lake with reeds and a far shore",
    "city": "a city street with grey buildings behind it",
    "space": "outer space, dark and wide, with tiny stars and a great planet with a ring",
    "room": "a room with a wooden floor and a window with curtains",
}
_FOREGROUND = {
    "desert": "Waves of yellow sand run through the foreground, and nothing grows on them.",
    "meadow": "Short grass covers the ground from the front up to the hills.",
    "snow": "Fresh snow covers the ground from the front up to the mountains.",
    "beach": "Pale sand lies in front, and where it ends small waves come in.",
    "lake": "A green bank lies in front, and behind it smooth water reaches far back.",
    "city": "A grey road with white dashes runs along the front of the picture.",
    "space": "There is no ground: everything hangs free in the dark between the stars.",
    "room": "A round rug lies on the floor, which ends at a wall behind.",
}
_WHEN = {"day": ("by day",), "sunset": ("at sunset", "in the evening"), "night": ("at night",)}
_LIGHT = {
    "day": ("It is day, and everything can be seen well.", "The scene lies in the plain light of day."),
    "sunset": ("It is sunset, and everything has a warm tone.", "The warm light is that of a sunset."),
    "night": ("It is night, and everything has a dark tone.", "The scene lies in the dark of the night."),
}
_WEATHER = {
    "clear": "under a clear sky",
    "cloudy": "under clouds",
    "rain": "in the rain",
    "snowfall": "in falling snow",
}
_WEATHER_SENTENCE = {
    "clear": ("The sky is clear.", "There is no cloud in the sky."),
    "cloudy": ("Clouds hang in the sky.", "The sky is cloudy."),
    "rain": ("It is raining.", "Rain falls all over the picture."),
    "snowfall": ("It is snowing.", "Snowflakes fall all over the picture."),
}
_STYLE = {"flat": "flat drawing", "ink": "ink drawing", "pixel": "pixel art", "gradient": "soft drawing"}
_STYLE_SENTENCE = {
    "flat": (
        "It is a flat drawing, in plain colours and without outlines.",
        "The style is a flat drawing: plain shapes without outlines.",
    ),
    "ink": (
        "It is an ink drawing with dark outlines and plain colours.",
        "The style is an ink drawing: every shape has a dark outline.",
    ),
    "pixel": (
        "It is pixel art, made of coarse square pixels.",
        "The style is pixel art: one can count the squares.",
    ),
    "gradient": (
        "It is a soft drawing, in smooth gradients and without outlines.",
        "The style is a soft drawing: the colours blend from light to dark.",
    ),
}
_PLACE = {"left": "on the left", "middle": "in the middle", "right": "on the right"}
_FEATURES = {
    "cactus": "It has two arms and a happy face.",
    "house": "It has a roof, a door and windows.",
    "tree": "It has a brown trunk and a round crown.",
    "balloon": "It is round and hangs on a string.",
    "boat": "It has a hull and a sail.",
    "cat": "It sits, with two pointed ears and a tail.",
    "car": "It has two wheels and windows.",
    "sun": "It is a round disc with rays.",
    "moon": "It is a crescent.",
    "star": "It has five points.",
    "ball": "It is round, with a bright stripe.",
    "cube": "It shows three of its square sides.",
    "mushroom": "It has a pale stem and a cap with dots.",
    "flower": "It has petals around its middle and a green stem.",
    "bird": "It has wings, a tail and a beak.",
    "cup": "It has a handle.",
}
_INVENTED_PLACE = ("in the background", "in the distance", "near the edge of the picture", "in a corner")
_DOUBT = ("there also seems to be", "one can also make out", "there appears to be")


def article(noun_phrase: str) -> str:
    """The phrase with its indefinite article."""
    return f"{'an' if noun_phrase[0] in 'aeiou' else 'a'} {noun_phrase}"


def describe(thing: Thing, *, size: bool, colour: bool, face: bool) -> str:
    """A noun phrase such as "a small green cactus with a happy face" or "three red balls"."""
    words = [thing.size] * size + [thing.colour] * colour
    if thing.count > 1:
        return " ".join([_NUMBERS[thing.count], *words, _PLURALS.get(thing.kind, f"{thing.kind}s")])
    phrase = article(" ".join([*words, thing.kind]))
    return f"{phrase} with a happy face" if face and thing.kind == "cactus" else phrase


def prompt_caption(scene: Scene, stated: frozenset[str]) -> str:
    """One phrase that names every thing, its count and the sign, and of the rest what is `stated`."""
    phrases = [
        describe(thing, size="size" in stated, colour="colour" in stated, face=True) for thing in scene.things
    ]
    return _phrase(scene, phrases, stated, random.Random(f"prompt {scene.seed}"))


def short_caption(scene: Scene) -> str:
    """Up to about twenty words. May leave out whatever is not a kind, and a natural colour more often."""
    rng = random.Random(f"short {scene.seed}")
    phrases = []
    for thing in scene.things:
        plain = thing.colour == NATURAL_COLOUR[thing.kind]
        size, colour, face = rng.random() < 0.4, rng.random() < (0.5 if plain else 0.9), rng.random() < 0.6
        phrases.append(describe(thing, size=size, colour=colour, face=face))
    shares = {"background": 0.9, "place": 0.4, "time": 0.45, "weather": 0.25, "style": 0.3}
    stated = {name for name, share in shares.items() if rng.random() < share}
    spoken = scene if rng.random() < 0.8 else replace(scene, sign=None)
    return _phrase(spoken, phrases, frozenset(stated), rng)


def _phrase(scene: Scene, phrases: Sequence[str], stated: frozenset[str], rng: random.Random) -> str:
    words = [_subject(scene, phrases, "place" in stated)]
    if scene.sign is not None:
        words.append(f"with {_sign(scene.sign, 'colour' in stated)}")
    if "background" in stated:
        words.append(pick(rng, _WHERE[scene.background]))
    if "time" in stated and scene.time is not None:
        words.append(pick(rng, _WHEN[scene.time]))
    if "weather" in stated and scene.weather is not None:
        words.append(_WEATHER[scene.weather])
    return " ".join(words) + (f", {_STYLE[scene.style]}" if "style" in stated else "")


def _subject(scene: Scene, phrases: Sequence[str], placed: bool) -> str:
    """The things as one phrase; above and in front of are always said, left and right if `placed`."""
    if scene.layout == "stack":
        return f"{phrases[0]} above {phrases[1]}"
    if scene.layout == "depth":
        return f"{phrases[0]} in front of {phrases[1]}"
    if len(phrases) == 1:
        return (
            f"{phrases[0]} {_PLACE[scene.things[0].place]}"
            if placed and scene.layout == "single"
            else phrases[0]
        )
    if len(phrases) == 3:
        return ("from left to right " if placed else "") + f"{phrases[0]}, {phrases[1]} and {phrases[2]}"
    return f"{phrases[0]} to the left of {phrases[1]}" if placed else f"{phrases[0]} and {phrases[1]}"


def _sign(sign: Sign, colour: bool) -> str:
    noun = f"{sign.colour} {sign.kind}" if colour else sign.kind
    return f'{article(noun)} that says "{sign.text}"'


def dense_caption(scene: Scene) -> str:
    """Sixty words and more, in sentences that leave nothing out."""
    rng = random.Random(f"dense {scene.seed}")
    opening = pick(rng, ("The picture shows", "This is a drawing of", "We see"))
    sentences = [f"{opening} {_BACKDROP[scene.background]}."]
    if scene.time is not None:
        sentences.append(pick(rng, _LIGHT[scene.time]))
    if scene.weather is not None:
        sentences.append(pick(rng, _WEATHER_SENTENCE[scene.weather]))
    sentences.append(_FOREGROUND[scene.background])
    sentences += _thing_sentences(scene, rng)
    if scene.sign is not None:
        where = (
            "At the top hangs"
            if scene.sign.kind == "banner"
            else f"{_PLACE[scene.sign.place].capitalize()} stands"
        )
        sentences.append(f"{where} {_sign(scene.sign, colour=True)}.")
    sentences.append(pick(rng, _STYLE_SENTENCE[scene.style]))
    if len(scene.things) == 1:
        alone = (
            "There is nothing else at all to be seen in this picture.",
            "Apart from that the whole scene is quite empty and calm.",
        )
        sentences.append(pick(rng, alone))
    return " ".join(sentences)


def _thing_sentences(scene: Scene, rng: random.Random) -> list[str]:
    sentences = []
    for thing in scene.things:
        subject = describe(thing, size=True, colour=True, face=True)
        floats = scene.background == "space" or thing.kind in HOVERING
        verb = ("float" if floats else "stand") + ("s" if thing.count == 1 else "")
        place = _dense_place(scene, thing)
        if rng.random() < 0.5:
            sentences.append(f"{place.capitalize()} {verb} {subject}.")
        else:
            sentences.append(f"{subject.capitalize()} {verb} {place}.")
        if thing.count == 1:
            sentences.append(_FEATURES[thing.kind])
        else:
            same = "Both" if thing.count == 2 else f"All {_NUMBERS[thing.count]}"
            sentences.append(f"{same} of them look the same and have the same size.")
    if scene.layout == "pair":
        first, second = scene.things
        sentences.append(f"The {first.kind} is to the left of the {second.kind}.")
    return sentences


def _dense_place(scene: Scene, thing: Thing) -> str:
    if scene.layout == "row":
        return "side by side in a row"
    if scene.layout in ("stack", "depth"):
        other = next(each for each in scene.things if each is not thing)
        relation = {"top": "above", "bottom": "below", "front": "in front of", "back": "behind"}[thing.place]
        return f"{relation} the {other.colour} {other.kind}"
    return _PLACE[thing.place]


def hallucinated_caption(scene: Scene) -> str:
    """What a careless captioner might say: some attributes wrong, at times a thing invented, no light and no style."""
    rng = random.Random(f"hallucinated {scene.seed}")
    misread = replace(scene, things=tuple(_misread(thing, rng) for thing in scene.things))
    opening = pick(rng, ("The image features", "The image depicts", "The scene shows"))
    sentences = [f"{opening} {_BACKDROP[scene.background]}.", *_thing_sentences(misread, rng)]
    if rng.random() < 0.5:
        kind = pick(rng, [each for each in KINDS if each not in {thing.kind for thing in scene.things}])
        invented = article(f"{pick(rng, COLOURS)} {kind}")
        sentences.append(f"In addition, {pick(rng, _DOUBT)} {invented} {pick(rng, _INVENTED_PLACE)}.")
    return " ".join(sentences)


def _misread(thing: Thing, rng: random.Random) -> Thing:
    colour = pick(rng, COLOURS) if rng.random() < 0.25 else thing.colour
    size = pick(rng, SIZES) if rng.random() < 0.25 else thing.size
    return replace(thing, colour=colour, size=size)
