from pixart_sigma.evaluation.judges.labels import ANSWERS, UNASKED, truth_labels
from pixart_sigma.world.scene import KINDS, Scene, Sign, Thing, sample_scene

SCENE = Scene(
    "lake",
    "night",
    "rain",
    "pixel",
    "pair",
    (Thing("boat", "red", "small", "left"), Thing("star", "white", "large", "right", 3)),
    Sign("banner", "green", "OPEN", "top"),
    7,
)
BARE = Scene("space", None, None, "ink", "single", (Thing("cup", "blue", "small", "middle"),), None, 8)


def answers(row: int, kind: str | None = None) -> dict[str, object]:
    read = {}
    for name, column in truth_labels([SCENE, BARE]).items():
        if (column.ndim == 2) == (kind is not None):
            label = column[row] if kind is None else column[row, KINDS.index(kind)]
            read[name] = "unasked" if label == UNASKED else ANSWERS[name][int(label)]
    return read


def test_labels_are_the_truth() -> None:
    assert answers(0) == {
        "background": "lake",
        "time": "night",
        "weather": "rain",
        "style": "pixel",
        "sign": "banner",
        "sign_colour": "green",
    }
    assert answers(0, "star") == {"count": 3, "colour": "white", "size": "large", "place": "right"}
    assert answers(0, "boat") == {"count": 1, "colour": "red", "size": "small", "place": "left"}


def test_what_is_not_there_has_no_attributes() -> None:
    assert answers(0, "cup") == {"count": 0, "colour": "unasked", "size": "unasked", "place": "unasked"}
    bare = answers(1)
    assert (bare["time"], bare["weather"], bare["sign"], bare["sign_colour"]) == (None, None, None, "unasked")


def test_every_scene_has_labels() -> None:
    scenes = [sample_scene(seed, all_pairs=True) for seed in range(500)]
    labels = truth_labels(scenes)
    there = labels["count"] > 0
    assert there.sum(1).tolist() == [len(scene.things) for scene in scenes]
    for name in ("colour", "size", "place"):
        assert ((labels[name] != UNASKED) == there).all()
    for name, column in labels.items():
        assert column.max() == len(ANSWERS[name]) - 1, f"{name}: an answer never occurs"
