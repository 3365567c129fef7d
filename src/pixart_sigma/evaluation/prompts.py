"""What a model is asked for: the fixed list of the pocket world, or a file of the user's own.

Knows nothing of tensors, so that a bad file is found before anything heavy is imported.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import count, cycle
from pathlib import Path

from pixart_sigma.errors import InvalidInput
from pixart_sigma.world import Scene, prompt_caption, sample_scene
from pixart_sigma.world.scene import HELD_OUT_BACKGROUNDS, HELD_OUT_COLOURS

POCKET_PROMPTS = "pocket"
"""The name of the fixed list."""
FILE_GROUP = "prompts"
"""The one group of a file's prompts."""
_FIRST_SEED = 4 * 10**9
"""Of the list's scenes; what is trained or validated on, and what the judges saw, lies below."""
_SEEDS_APART = 10**6
_ALWAYS = frozenset({"background", "colour"})
_EXTRAS = (None, "place", "size", None, "time", "place", "size", "style", None, "place", "size", "weather")
"""What a prompt of one object states beside colour and background, in turns."""
_QUOTED = re.compile(r'["“]([^"“”]+)["”]')

Asked = tuple[Scene, frozenset[str]]


@dataclass(frozen=True)
class Prompt:
    """A text, and what is known of the picture that it asks for.

    `id` names the picture's file, `seed` makes its noise, `lettering` is what the picture shall show in letters.
    `scene` and `stated` (see `prompt_caption`) are what the text says; a user's own text has none.
    """

    id: str
    text: str
    group: str
    seed: int
    scene: Scene | None = None
    stated: frozenset[str] = frozenset()
    lettering: str | None = None


@cache
def pocket_prompts() -> tuple[Prompt, ...]:
    """The fixed list. Every text is another; each of a held-out group names one pair that no training shows."""
    prompts: dict[str, Prompt] = {}
    for index, (group, (num, ask)) in enumerate(_GROUPS.items()):
        full = len(prompts) + num
        for scene, stated in ask(_scenes(index)):
            text = prompt_caption(scene, stated)
            if text not in prompts:
                name = f"{group.replace(' ', '-')}-{num - full + len(prompts) + 1:03d}"
                prompts[text] = Prompt(name, text, group, len(prompts), scene, stated, _quoted(text))
            if len(prompts) == full:
                break
    return tuple(prompts.values())


def _scenes(group: int) -> Iterator[Scene]:
    return (sample_scene(seed) for seed in count(_FIRST_SEED + group * _SEEDS_APART))


def _laid_out(scenes: Iterator[Scene], layout: str) -> Iterator[Scene]:
    return (scene for scene in scenes if scene.layout == layout and scene.sign is None)


def _one_object(scenes: Iterator[Scene]) -> Iterator[Asked]:
    singles = _laid_out(scenes, "single")
    for extra in cycle(_EXTRAS):
        if extra is None:
            yield next(singles), _ALWAYS
        elif extra in ("time", "weather"):
            yield next(scene for scene in singles if getattr(scene, extra) is not None), _ALWAYS | {extra}
        else:
            yield next(singles), _ALWAYS | {extra}


def _counts(scenes: Iterator[Scene]) -> Iterator[Asked]:
    return ((scene, _ALWAYS) for scene in _laid_out(scenes, "row"))


def _two_objects(scenes: Iterator[Scene]) -> Iterator[Asked]:
    """Left and right, above, in front: three, one and one of five."""
    for layout in cycle(("pair", "stack", "pair", "depth", "pair")):
        yield next(_laid_out(scenes, layout)), _ALWAYS | {"place"}


def _three_objects(scenes: Iterator[Scene]) -> Iterator[Asked]:
    """With and without their order."""
    trios = _laid_out(scenes, "trio")
    for stated in cycle((_ALWAYS, _ALWAYS | {"place"})):
        yield next(trios), stated


def _held_out_colours(scenes: Iterator[Scene]) -> Iterator[Asked]:
    singles = _laid_out(scenes, "single")
    for kind, colour in cycle(sorted(HELD_OUT_COLOURS)):
        scene = next(scene for scene in singles if (kind, scene.background) not in HELD_OUT_BACKGROUNDS)
        yield replace(scene, things=(replace(scene.things[0], kind=kind, colour=colour),)), _ALWAYS


def _held_out_backgrounds(scenes: Iterator[Scene]) -> Iterator[Asked]:
    singles = _laid_out(scenes, "single")
    for kind, background in cycle(sorted(HELD_OUT_BACKGROUNDS)):
        scene = next(
            scene
            for scene in singles
            if scene.background == background and (kind, scene.things[0].colour) not in HELD_OUT_COLOURS
        )
        yield replace(scene, things=(replace(scene.things[0], kind=kind),)), _ALWAYS


def _signs(scenes: Iterator[Scene]) -> Iterator[Asked]:
    """Signs and banners beside one thing, every word once."""
    seen: set[str] = set()
    for scene in scenes:
        if scene.sign is not None and scene.layout == "single" and scene.sign.text not in seen:
            seen.add(scene.sign.text)
            yield scene, _ALWAYS


_GROUPS: dict[str, tuple[int, Callable[[Iterator[Scene]], Iterator[Asked]]]] = {
    "one object": (120, _one_object),
    "counts": (20, _counts),
    "two objects": (100, _two_objects),
    "three objects": (40, _three_objects),
    "held-out colours": (40, _held_out_colours),
    "held-out backgrounds": (40, _held_out_backgrounds),
    "signs": (20, _signs),
}


def find_prompts(prompts: str) -> tuple[Prompt, ...]:
    """ "pocket", or a file's path → its prompts: a text a line, or a JSON object a line with "prompt".

    An object may also have "text", the words that the picture shall show; else they are those in double quotes. Empty
    lines are left out. Raises InvalidInput for a file that is missing, empty or not UTF-8, and names a bad line.
    """
    if prompts == POCKET_PROMPTS:
        return pocket_prompts()
    path = Path(prompts)
    try:
        lines = path.read_text("utf-8-sig").split("\n")
    except OSError as error:
        raise InvalidInput(
            f"prompts file {path} cannot be read ({error.strerror}); give a text file, or 'pocket'"
        ) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InvalidInput(f"prompts file {path}, line {line}, is not UTF-8; save it as UTF-8") from error
    numbered = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise InvalidInput(f"prompts file {path} is empty; write one prompt a line")
    is_json = numbered[0][1].startswith("{")
    asked = [_json_prompt(path, number, line) if is_json else (line, None) for number, line in numbered]
    return tuple(
        Prompt(f"{index + 1:05d}", text, FILE_GROUP, index, lettering=lettering or _quoted(text))
        for index, (text, lettering) in enumerate(asked)
    )


def _json_prompt(path: Path, number: int, line: str) -> tuple[str, str | None]:
    where = f"prompts file {path}, line {number},"
    try:
        content = json.loads(line)
    except json.JSONDecodeError as error:
        raise InvalidInput(f"{where} is not JSON ({error.msg}); the first line is, so all must be") from error
    if not isinstance(content, dict) or not {"prompt"} <= content.keys() <= {"prompt", "text"}:
        raise InvalidInput(
            f'{where} is no object with "prompt" and perhaps "text"; write {{"prompt": "a red house"}}'
        )
    for key, value in content.items():
        if not isinstance(value, str) or not _has_letters(value):
            raise InvalidInput(f'{where} has a "{key}" without a word; write some in quotes')
    return content["prompt"].strip(), content.get("text")


def _quoted(text: str) -> str | None:
    found = _QUOTED.search(text)
    return found[1] if found and _has_letters(found[1]) else None


def _has_letters(text: str) -> bool:
    return any(character.isalnum() for character in text)


def evenly(prompts: Sequence[Prompt], num: int | None) -> tuple[Prompt, ...]:
    """`num` of the prompts, evenly spread over the list and so over its groups; None: all. Raises InvalidInput."""
    if num is None:
        return tuple(prompts)
    if not 1 <= num <= len(prompts):
        raise InvalidInput(
            f"--num {num} is outside 1 to {len(prompts)}, the number of prompts; leave it out for all"
        )
    return tuple(prompts[index * len(prompts) // num] for index in range(num))


def prompts_digest(prompts: Sequence[Prompt]) -> str:
    """Changes when a text or a seed does: figures of different lists are not to be compared."""
    content = "\n".join(f"{prompt.seed} {prompt.text}" for prompt in prompts)
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()
