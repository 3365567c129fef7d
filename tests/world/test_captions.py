import itertools

from pixart_sigma.world import Scene, Thing, dense_caption, sample_scene, short_caption
from pixart_sigma.world.scene import NATURAL_COLOUR

SCENES = [sample_scene(seed) for seed in range(500)]


def test_short_captions_name_every_thing_and_every_unusual_colour() -> None:
    for scene in SCENES:
        caption = short_caption(scene)
        assert len(caption.split()) <= 32
        for thing in scene.things:
            assert thing.kind in caption
            assert thing.colour == NATURAL_COLOUR[thing.kind] or thing.colour in caption


def test_dense_captions_leave_nothing_out() -> None:
    for scene in SCENES:
        caption = dense_caption(scene).lower()
        for thing in scene.things:
            assert f"{thing.size} {thing.colour} {thing.kind}" in caption
            place = "in the middle" if thing.place == "centre" else f"on the {thing.place}"
            assert place in caption
        assert 20 <= len(caption.split()) <= 70


def test_a_caption_depends_on_the_scene_alone() -> None:
    scene = Scene("desert", (Thing("cactus", "green", "small", "centre"),), 11)
    assert short_caption(scene) == short_caption(scene)
    assert "a small green cactus with a happy face" in dense_caption(scene).lower()


def test_articles_fit_the_next_word() -> None:
    for scene in SCENES:
        words = f"{short_caption(scene)} {dense_caption(scene)}".lower().split()
        for first, second in itertools.pairwise(words):
            assert first != "a" or second[0] not in "aeiou"
            assert first != "an" or second[0] in "aeiou"
