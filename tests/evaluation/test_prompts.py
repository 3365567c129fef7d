from collections import Counter
from pathlib import Path

import pytest

from pixart_sigma.data.drawn import FIRST_VALIDATION_SEED
from pixart_sigma.errors import InvalidInput
from pixart_sigma.evaluation.prompts import evenly, find_prompts, pocket_prompts, prompts_digest
from pixart_sigma.world import is_held_out, prompt_caption, render, sample_scene
from pixart_sigma.world.scene import HELD_OUT_BACKGROUNDS, HELD_OUT_COLOURS


def test_the_fixed_list_has_its_groups_and_no_text_twice() -> None:
    prompts = find_prompts("pocket")
    assert Counter(prompt.group for prompt in prompts) == {
        "one object": 120,
        "counts": 20,
        "two objects": 100,
        "three objects": 40,
        "held-out colours": 40,
        "held-out backgrounds": 40,
        "signs": 20,
    }
    for values in ("id", "text", "seed"):
        assert len({getattr(prompt, values) for prompt in prompts}) == len(prompts)


def test_every_text_states_what_its_prompt_says_it_states() -> None:
    for prompt in pocket_prompts():
        assert prompt.scene is not None
        assert prompt.text == prompt_caption(prompt.scene, prompt.stated)
        assert {"colour", "background"} <= prompt.stated
        for thing in prompt.scene.things:
            assert f"{thing.colour} {thing.kind[:3]}" in prompt.text


def test_one_object_prompts_state_more_in_turns_and_only_what_there_is() -> None:
    prompts = [prompt for prompt in pocket_prompts() if prompt.group == "one object"]
    extras = Counter(extra for prompt in prompts for extra in prompt.stated - {"colour", "background"})
    assert extras == {"place": 30, "size": 30, "time": 10, "weather": 10, "style": 10}
    for prompt in prompts:
        for name in prompt.stated & {"time", "weather"}:
            assert getattr(prompt.scene, name) is not None


def test_a_held_out_prompt_shows_one_held_out_pair_and_the_others_none() -> None:
    counted: Counter[tuple[str, str]] = Counter()
    for prompt in pocket_prompts():
        scene = prompt.scene
        assert scene is not None
        colour = {(thing.kind, thing.colour) for thing in scene.things} & HELD_OUT_COLOURS
        background = {(thing.kind, scene.background) for thing in scene.things} & HELD_OUT_BACKGROUNDS
        expected = {"held-out colours": (1, 0), "held-out backgrounds": (0, 1)}.get(prompt.group, (0, 0))
        assert (len(colour), len(background)) == expected
        assert is_held_out(scene) == (expected != (0, 0))
        counted.update(colour | background)
    assert set(counted) == HELD_OUT_COLOURS | HELD_OUT_BACKGROUNDS
    assert max(counted.values()) <= 5  # spread over the pairs


def test_pairs_stand_in_every_relation_and_signs_show_each_word_once() -> None:
    prompts = pocket_prompts()
    texts = [prompt.text for prompt in prompts if prompt.group == "two objects"]
    counts = [
        sum(words in text for text in texts) for words in (" to the left of ", " above ", " in front of ")
    ]
    assert counts == [60, 20, 20]
    words = [prompt.lettering for prompt in prompts if prompt.group == "signs"]
    assert None not in words
    assert len(set(words)) == 20
    assert {prompt.lettering for prompt in prompts if prompt.group != "signs"} == {None}


def test_no_scene_is_one_that_is_trained_or_validated_on() -> None:
    """Its seed lies apart, and it can be drawn, the made-up ones too."""
    for prompt in pocket_prompts():
        assert prompt.scene is not None
        assert prompt.scene.seed >= 4 * FIRST_VALIDATION_SEED
        assert prompt.scene.background == sample_scene(prompt.scene.seed).background
    held_out = [prompt.scene for prompt in pocket_prompts() if prompt.group.startswith("held-out")]
    assert held_out[0] is not None
    assert render(held_out[0], 32, 48).shape == (32, 48, 3)


def test_a_text_file_has_a_prompt_a_line(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text('\ufeffa red house\n\n  a sign that says "Open now", at night \r\na “ ” b\n', "utf-8")
    prompts = find_prompts(str(file))
    assert [prompt.text for prompt in prompts] == [
        "a red house",
        'a sign that says "Open now", at night',
        "a “ ” b",
    ]
    assert [prompt.lettering for prompt in prompts] == [None, "Open now", None]
    assert [prompt.id for prompt in prompts] == ["00001", "00002", "00003"]
    assert [prompt.seed for prompt in prompts] == [0, 1, 2]
    assert all(prompt.scene is None for prompt in prompts)


def test_a_json_lines_file_may_say_what_is_to_be_read(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "a shop \\"A\\"", "text": "SHOP B"}\n{"prompt": "says \\"C\\""}\n', "utf-8")
    assert [(prompt.text, prompt.lettering) for prompt in find_prompts(str(file))] == [
        ('a shop "A"', "SHOP B"),
        ('says "C"', "C"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; write one prompt a line"),
        (b" \n\n", "is empty; write one prompt a line"),
        (b"a\nb\n\xff\xfe", "line 3, is not UTF-8"),
        (b'{"prompt": "a"}\n\na red house\n', "line 3, is not JSON"),
        (b'{"prompt": "a"}\n{"text": "a"}\n', 'line 2, is no object with "prompt"'),
        (b'{"prompt": "a", "seed": 1}\n', 'line 1, is no object with "prompt"'),
        (b'{"prompt": "a"}\n["prompt"]\n', 'line 2, is no object with "prompt"'),
        (b'{"prompt": " "}\n', 'line 1, has a "prompt" without a word'),
        (b'{"prompt": "a", "text": "!"}\n', 'line 1, has a "text" without a word'),
        (b'{"prompt": 3}\n', 'line 1, has a "prompt" without a word'),
    ],
)
def test_a_bad_line_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "p.txt"
    file.write_bytes(content)
    with pytest.raises(InvalidInput, match=message):
        find_prompts(str(file))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"prompts file .*no\.txt cannot be read .*'pocket'"):
        find_prompts(str(tmp_path / "no.txt"))


def test_some_prompts_are_evenly_spread_over_the_groups() -> None:
    prompts = pocket_prompts()
    assert evenly(prompts, None) == evenly(prompts, 380) == prompts
    assert Counter(prompt.group for prompt in evenly(prompts, 38)) == {
        "one object": 12,
        "counts": 2,
        "two objects": 10,
        "three objects": 4,
        "held-out colours": 4,
        "held-out backgrounds": 4,
        "signs": 2,
    }
    for num in (0, 381):
        with pytest.raises(InvalidInput, match=f"--num {num} is outside 1 to 380"):
            evenly(prompts, num)


def test_the_digest_tells_lists_apart() -> None:
    prompts = pocket_prompts()
    assert prompts_digest(prompts) == prompts_digest(prompts)
    assert prompts_digest(prompts[1:]) != prompts_digest(prompts)
    assert prompts_digest(prompts[::-1]) != prompts_digest(prompts)
